-- Answer what is late. Returns ms until the next deadline, at most ARGV[1].
-- ARGV: ms; of a worker that sweeps all the time: ms since its last sweep, by its own clock ('' at first)
local most = tonumber(ARGV[1])
if ARGV[2] then follow_clock(tonumber(ARGV[2])) end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, 200)) do
  if request(id, 'deadline')[1] then
    finish_late(id)
  else
    redis.call('ZREM', DEADLINES, id)
    redis.call('ZREM', READY, id)
    redis.call('ZREM', LEASES, id)
  end
end
recover_expired()
count_all()
local first = redis.call('ZRANGE', DEADLINES, 0, 0, 'WITHSCORES')
return first[2] and math.max(0, math.min(most, tonumber(first[2]) - now)) or most
