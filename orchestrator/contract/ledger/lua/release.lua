-- Hand a shard back unfinished; this does not count as an attempt.   ARGV: shard, fence
if not holds(ARGV[1], ARGV[2]) then return 0 end
release_shard(ARGV[1])
redis.call('ZADD', returned, ARGV[1], ARGV[1])
return 1
