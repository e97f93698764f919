-- Give requests back that this worker did not try: no delivery counts. ARGV: worker, keys
local worker = ARGV[1]
for place = 2, #ARGV do
  local id = ARGV[place]
  local waiting = request(id, 'worker', 'deadline')
  if waiting[1] == worker and redis.call('ZREM', LEASES, id) == 1 then
    redis.call('HINCRBY', key('r:' .. id), 'deliveries', -1)
    redis.call('HDEL', key('r:' .. id), 'worker')
    redis.call('ZADD', READY, waiting[2], id)
  end
end
wake()
