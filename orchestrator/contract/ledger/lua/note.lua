-- Set a field of a job that is known.   ARGV: field, value, and for what only the holder of a shard may set: shard, fence
if not field('state') or ARGV[3] and not holds(ARGV[3], ARGV[4]) then return end
redis.call('HSET', job, ARGV[1], ARGV[2])
