-- A submission failed before its job began: its key is free again.   KEYS: job, submission key   ARGV: id
if string.match(redis.call('GET', KEYS[2]) or '', '^(%S+)') == ARGV[1] then redis.call('DEL', KEYS[2]) end
