-- A worker cannot write the job's output, and leaves the end of the job to others for a while, once.
-- ARGV: fence of its finalize lease, worker, ms, then the workers that could end the job
-- Returns 1, and the lease is given up; or 0 where all of them have tried, or this one did before.
local own = 'end ' .. ARGV[2]
if field('finalizer_fence') ~= ARGV[1] or redis.call('HEXISTS', avoided, own) == 1 then return 0 end
redis.call('HSET', avoided, own, now_ms() + ARGV[3])
for i = 4, #ARGV do
  if redis.call('HEXISTS', avoided, 'end ' .. ARGV[i]) == 0 then
    redis.call('HSET', job, 'finalizer_until', 0)
    return 1
  end
end
return 0
