-- Hand a shard back unfinished; that is no failed attempt.   ARGV: shard, fence
if not holds(ARGV[1], ARGV[2]) then return 0 end
let_go(ARGV[1])
redis.call('ZADD', returned, ARGV[1], ARGV[1])
return 1
