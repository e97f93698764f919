-- Set a field of a job that is known.   ARGV: field, value
if field('state') then redis.call('HSET', job, ARGV[1], ARGV[2]) end
