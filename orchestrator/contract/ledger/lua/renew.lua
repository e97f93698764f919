-- Keep leases.   ARGV: lease in ms, shard, fence, shard, fence, ...
-- Returns {state or 'unknown', lost shard, lost shard, ...}; a shard that was committed meanwhile is not lost.
local answer = {field('state') or 'unknown'}
local until_ms = now_ms() + tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  if holds(ARGV[i], ARGV[i + 1]) then
    redis.call('ZADD', leases, until_ms, ARGV[i])
  elseif redis.call('GETBIT', done, ARGV[i]) == 0 then
    answer[#answer + 1] = ARGV[i]
  end
end
return answer
