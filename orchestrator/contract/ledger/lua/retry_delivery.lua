-- An attempt to deliver a webhook failed.
-- KEYS: (unused), due, hash of the job   ARGV: job, ms until the next attempt, error
if redis.call('ZADD', KEYS[2], 'XX', 'CH', now_ms() + tonumber(ARGV[2]), ARGV[1]) == 1 then
  redis.call('HSET', KEYS[3], 'error', ARGV[3])
end
