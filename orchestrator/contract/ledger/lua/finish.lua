-- A run of the job has ended, and its outcome is on the disk.
-- KEYS: job, active, outputs, counts of the fleet
-- ARGV: id, output (or ''), state, error, result, seconds to remember it, run
-- Returns 1, or 0 where a later run has begun.
if number('run') > tonumber(ARGV[7]) then return 0 end
redis.call('SREM', KEYS[2], ARGV[1])
if ARGV[2] ~= '' and redis.call('HGET', KEYS[3], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[3], ARGV[2]) end
redis.call('DEL', leases, holders, returned, done, attempts, sourceless, avoided)
if redis.call('EXISTS', job) == 0 then return 1 end
redis.call('HSET', job, 'state', ARGV[3], 'error', ARGV[4], 'result', ARGV[5])
if redis.call('HSETNX', job, 'ended_ms', now_ms()) == 1 then
  local kind, started = field('kind') or '', number('started_ms')
  redis.call('HINCRBY', KEYS[4], 'jobs:' .. kind .. ':' .. ARGV[3], 1)
  if started > 0 then redis.call('HINCRBY', KEYS[4], 'job_ms:' .. kind, math.max(0, now_ms() - started)) end
end
redis.call('EXPIRE', job, ARGV[6])
return 1
