-- Lease the requests that are due first, those of dead workers included.
-- ARGV: worker, how many, lease in ms, most bytes
-- Returns {now, {key, deadline, admitted, deliveries, degraded, kind, digest, path, tried}, ...}; taken:WORKER names the
--   images, which the worker reads by SORT in the same round trip
local worker, most, lease, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
recover_expired()
local taken, bytes, gone, leases, images = {string.format('%.0f', now)}, 0, {}, {}, {}
local first = redis.call('ZRANGE', READY, 0, most - 1)
local more = #first == most  -- may be there
for _, id in ipairs(first) do
  local waiting = request(id, 'deadline', 'admitted', 'size', 'degraded', 'deliveries', 'worker', 'kind', 'digest', 'path',
    'tried')
  if not waiting[1] then
    gone[#gone + 1] = id
    redis.call('ZREM', DEADLINES, id)
  elseif tonumber(waiting[1]) <= now then
    finish_late(id)
  else
    bytes = bytes + tonumber(waiting[3])
    if bytes > most_bytes and #taken > 1 then
      more = true
      break
    end
    -- A worker that takes again what it held was too slow to renew its lease: it is alive, so that is no delivery.
    local deliveries = (waiting[5] or 0) + (waiting[6] == worker and 0 or 1)
    redis.call('HSET', key('r:' .. id), 'worker', worker, 'deliveries', deliveries)
    gone[#gone + 1] = id
    leases[#leases + 1] = now + lease
    leases[#leases + 1] = id
    if waiting[7] == 'image' then images[#images + 1] = waiting[8] .. ':' .. id end
    taken[#taken + 1] = {id, waiting[1], waiting[2], deliveries, waiting[4], waiting[7], waiting[8], waiting[9],
      waiting[10]}
  end
end
if gone[1] then redis.call('ZREM', READY, unpack(gone)) end
if leases[1] then redis.call('ZADD', LEASES, unpack(leases)) end
redis.call('UNLINK', key('taken:' .. worker))
if images[1] then redis.call('RPUSH', key('taken:' .. worker), unpack(images)) end
count_all()
-- A worker that got as many as it wanted asks again by itself.
if more and (#taken <= most or redis.call('HLEN', CAPACITY) > 1) and redis.call('ZCARD', READY) > 0 then wake() end
return taken
