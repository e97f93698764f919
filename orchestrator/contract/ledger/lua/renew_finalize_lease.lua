-- Keep the job's finalize lease.   ARGV: fence, lease in ms (0 gives it up)   Returns 1, or 0 where it is lost.
if field('finalizer_fence') ~= ARGV[1] then return 0 end
redis.call('HSET', job, 'finalizer_until', now_ms() + tonumber(ARGV[2]))
return 1
