-- A client decided alone while the server was away: keep its decision, as the record where there is none.
-- ARGV: for each: key, bin, verdict, reason, digest, rest
-- Returns how many differ from the record; nil where the line is unknown.
if not facts('fallback')[1] then return nil end
local differ = 0
for place = 1, #ARGV, 6 do
  local id, bin = ARGV[place], ARGV[place + 1]
  local record = redis.call('HGET', ANSWERS, id)
  if not record then
    local _, waiting = nil, find_waiting(id)
    waiting.digest = waiting.digest or ARGV[place + 4]
    local verdict = ARGV[place + 2]
    _, record = finish(id, verdict, ARGV[place + 5], ARGV[place + 3], cause_of(verdict), waiting)
  end
  if cjson.decode(record).bin ~= bin then
    differ = differ + 1
    if redis.call('HSET', key('delivered'), id, bin) == 1 then count('disagreements') end  -- 0: it is reported again
  end
  count('delivered_alone')
end
count_all()
return differ
