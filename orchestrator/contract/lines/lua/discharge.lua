-- Where an item really went. ARGV: key, bin   Returns the record, or '' where the server has none.
local id, bin = ARGV[1], ARGV[2]
local record = redis.call('HGET', ANSWERS, id)
redis.call('HSET', key('discharged'), id, bin)
count('discharged')
if record and cjson.decode(record).bin ~= bin then count('discharged_elsewhere') end
count_all()
return record or ''
