-- What the server knows of an answer. ARGV: key   Returns {record, where the item went, what a client decided alone}.
local id = ARGV[1]
local late = redis.call('HGET', key('late_discharged'), id)
return {redis.call('HGET', ANSWERS, id), late or redis.call('HGET', key('discharged'), id), redis.call('HGET', key('delivered'), id)}
