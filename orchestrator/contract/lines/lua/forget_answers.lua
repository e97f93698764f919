-- Forget answers that are in a file. What was reported after the file was written stays, with its answer.
-- ARGV: for each: key, discharged, delivered as in the file ('' for none)   Returns how many were forgotten.
local forgotten = 0
for place = 1, #ARGV, 3 do
  local id = ARGV[place]
  local discharged, delivered = redis.call('HGET', key('discharged'), id), redis.call('HGET', key('delivered'), id)
  if (discharged or '') == ARGV[place + 1] and (delivered or '') == ARGV[place + 2] then
    redis.call('HDEL', ANSWERS, id)
    redis.call('ZREM', ANSWERED, id)
    if discharged then redis.call('HDEL', key('discharged'), id) end
    if delivered then redis.call('HDEL', key('delivered'), id) end
    forgotten = forgotten + 1
  end
end
return forgotten
