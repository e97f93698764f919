-- Take a shard: one whose lease ran out first, then one handed back, then the next fresh one.
-- ARGV: worker, lease in ms, its version and model formats
-- Returns {shard, fence, attempt}, or the reason why there is none. The first claim says which version begins the job;
-- an evaluation begins again whenever it is claimed, so any version does it.
local state = field('state')
if not state then return 'unknown' end
if state ~= 'queued' and state ~= 'running' then return state end
if is_barred(field('version'), field('model_format'), ARGV[3], ARGV[4]) then return 'barred' end

local now = now_ms()
local shard
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
if expired[1] and tonumber(expired[2]) <= lease_clock() then
  shard = expired[1]
  redis.call('HINCRBY', attempts, shard, 1)
else
  local popped = redis.call('ZPOPMIN', returned)
  if popped[1] then
    shard = popped[1]
  else
    local next_shard, num_shards = number('next'), number('num_shards')
    while next_shard < num_shards and redis.call('GETBIT', done, next_shard) == 1 do
      next_shard = next_shard + 1
      if next_shard % 8 == 0 then -- skip whole bytes of shards that are done, which a restored job has
        local open = redis.call('BITPOS', done, 0, next_shard / 8)
        if open < 0 then open = 8 * redis.call('STRLEN', done) end
        next_shard = math.max(next_shard, open)
      end
    end
    redis.call('HSET', job, 'next', math.min(next_shard + 1, num_shards))
    if next_shard >= num_shards then return 'none' end
    shard = tostring(next_shard)
  end
end

redis.call('HDEL', sourceless, ARGV[1])
local fence = next_fence()
redis.call('ZADD', leases, now + tonumber(ARGV[2]), shard)
redis.call('HSET', holders, shard, fence .. ' ' .. ARGV[1])
if not field('version') and field('kind') ~= 'evaluate' then redis.call('HSET', job, 'version', ARGV[3]) end
if state == 'queued' then redis.call('HSET', job, 'state', 'running', 'started_ms', now) end
return {shard, tostring(fence), tonumber(redis.call('HGET', attempts, shard) or 0) + 1}
