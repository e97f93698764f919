-- Keep the right to end the job.   ARGV: fence, lease in ms (0 gives it up)   Returns 1, or 0 where it is lost.
if field('ender_fence') ~= ARGV[1] then return 0 end
redis.call('HSET', job, 'ender_until', now_ms() + tonumber(ARGV[2]))
return 1
