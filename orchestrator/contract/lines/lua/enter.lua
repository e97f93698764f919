-- Make the line known to the scripts, or change it. ARGV: name, value, ...   Counts of what waits are kept.
redis.call('HSET', LINE, unpack(ARGV))
redis.call('HSETNX', LINE, 'epoch', string.format('%.0f', time[1] * 1000000 + time[2]))
return redis.call('HGET', LINE, 'epoch')
