-- Lease the requests that are due first, those of dead workers included.
-- ARGV: worker, how many, lease in ms, most bytes
-- Returns {now, {key, deadline, admitted, deliveries, degraded, 'image' or 'path', image or path}, ...}
local worker, most, lease, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
recover_expired()
local taken, bytes = {string.format('%.0f', now)}, 0
for _, id in ipairs(redis.call('ZRANGE', READY, 0, most - 1)) do
  local waiting = request(id, 'deadline', 'admitted', 'size', 'degraded')
  if not waiting[1] then
    redis.call('ZREM', READY, id)
    redis.call('ZREM', DEADLINES, id)
  elseif tonumber(waiting[1]) <= now then
    finish_late(id)
  else
    bytes = bytes + tonumber(waiting[3])
    if bytes > most_bytes and #taken > 1 then break end
    -- A worker that takes again what it held was too slow to renew its lease: it is alive, so that is no delivery.
    local again = request(id, 'worker')[1] == worker
    local deliveries = redis.call('HINCRBY', key('r:' .. id), 'deliveries', again and 0 or 1)
    redis.call('HSET', key('r:' .. id), 'worker', worker)
    redis.call('ZREM', READY, id)
    redis.call('ZADD', LEASES, now + lease, id)
    local payload = request(id, 'image', 'path')
    taken[#taken + 1] = {id, waiting[1], waiting[2], deliveries, waiting[4], payload[1] and 'image' or 'path',
      payload[1] or payload[2]}
  end
end
count_all()
if redis.call('ZCARD', READY) > 0 then wake() end
return taken
