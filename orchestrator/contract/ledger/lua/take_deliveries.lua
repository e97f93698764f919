-- Take webhooks that are due; each is due again when the lease is over.
-- KEYS: (unused), due   ARGV: most, lease in ms, prefix of the hash of a job   Returns {{job, attempt}, ...}
local TTL_S = 8 * 24 * 3600
local now, taken = lease_clock(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), id)
  taken[#taken + 1] = {id, redis.call('HINCRBY', ARGV[3] .. id, 'attempts', 1)}
  redis.call('EXPIRE', ARGV[3] .. id, TTL_S)
end
return taken
