-- The counts since the line was created. Returns {those before the last minute, those of the last minute}.
local last = facts('minute')[1]
return {redis.call('HGETALL', key('stats')), last and redis.call('HGETALL', key('stats:' .. last)) or {}}
