-- KEYS: job, active, outputs, submission key (or '')
-- ARGV: id, output (or ''), fingerprint, key's TTL in s, lister's lease in ms, field, value, ...
if KEYS[4] ~= '' then
  local earlier = redis.call('GET', KEYS[4])
  if earlier then
    local id, print = string.match(earlier, '^(%S+) (%S+)$')
    if id ~= ARGV[1] then return {print == ARGV[3] and 'exists' or 'conflict', id} end
  end
end
if ARGV[2] ~= '' then
  local owner = redis.call('HGET', KEYS[3], ARGV[2])
  if owner and owner ~= ARGV[1] then return {'output_taken', owner} end
end
if field('state') then return {'created', ARGV[1]} end
local now = now_ms()
redis.call('HSET', job, 'state', 'queued', 'created_ms', now, 'lister_until', now + tonumber(ARGV[5]), unpack(ARGV, 6))
redis.call('SADD', KEYS[2], ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[3], ARGV[2], ARGV[1]) end
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[3], 'EX', ARGV[4]) end
return {'created', ARGV[1]}
