-- Keep leases. ARGV: worker, lease in ms, keys   Returns the keys that this worker no longer holds.
local worker, until_ms = ARGV[1], now + tonumber(ARGV[2])
local lost = {}
for place = 3, #ARGV do
  local id = ARGV[place]
  if redis.call('ZSCORE', LEASES, id) and request(id, 'worker')[1] == worker then
    redis.call('ZADD', LEASES, until_ms, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
