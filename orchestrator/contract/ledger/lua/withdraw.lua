-- Forget a job whose submission failed, unless a worker has claimed a shard of it.
-- KEYS: job, active, outputs, submission key (or '')   ARGV: id, output (or '')
-- Returns 1, or 0 where it was claimed.
if field('fence') ~= field('restored_fence') or number('shards_done') > 0 then return 0 end
redis.call('SREM', KEYS[2], ARGV[1])
if ARGV[2] ~= '' and redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[3], ARGV[2]) end
if KEYS[4] ~= '' and string.match(redis.call('GET', KEYS[4]) or '', '^(%S+)') == ARGV[1] then redis.call('DEL', KEYS[4]) end
redis.call('DEL', job, leases, holders, returned, done, attempts, sourceless, avoided)
return 1
