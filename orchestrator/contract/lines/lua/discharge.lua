-- Where an item really went. ARGV: key, bin   Returns the record, or '' where the server has none.
local id, bin = ARGV[1], ARGV[2]
local record = redis.call('HGET', ANSWERS, id)
if redis.call('HGET', key(record and 'discharged' or 'late_discharged'), id) == bin then return record or '' end  -- again
if record then
  redis.call('HSET', key('discharged'), id, bin)
  if cjson.decode(record).bin ~= bin then count('discharged_elsewhere') end
elseif redis.call('HLEN', key('late_discharged')) < MOST_LATE_DISCHARGES then
  redis.call('HSET', key('late_discharged'), id, bin)
else
  count('discharges_dropped')
end
count('discharged')
count_all()
return record or ''
