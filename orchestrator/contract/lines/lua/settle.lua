-- A client's deadline is over: what is the record? Where there is none, it becomes the late answer, or, where the
-- server knows no such request, the client's own.
-- ARGV: for each: key, verdict, reason, digest   Returns {record, ...}
local records = {}
for place = 1, #ARGV, 4 do
  local id = ARGV[place]
  local record = redis.call('HGET', ANSWERS, id)
  if not record then
    local first
    if request(id, 'deadline')[1] then
      first, record = finish_late(id)
    else
      first, record = finish(id, ARGV[place + 1], '"map_version":' .. (facts('map_version')[1] or '0'), ARGV[place + 2], '', ARGV[place + 3])
    end
  end
  records[#records + 1] = record
end
count_all()
return records
