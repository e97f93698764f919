-- A client's deadline is over: what is the record? Where there is none, it becomes the late answer, or, where the
-- server knows no such request, the client's own.
-- ARGV: for each: key, verdict, reason, digest, rest   Returns {record, ...}; nothing where the line is unknown
local line = facts('fallback', 'map_version')
if not line[1] then return {} end
local records = {}
for place = 1, #ARGV, 5 do
  local id = ARGV[place]
  local record = redis.call('HGET', ANSWERS, id)
  if not record then
    local first
    if request(id, 'deadline')[1] then
      first, record = finish_late(id)
    else
      local rest = '"map_version":' .. line[2] .. (ARGV[place + 4] ~= '' and ',' .. ARGV[place + 4] or '')
      first, record = finish(id, ARGV[place + 1], rest, ARGV[place + 2], '', ARGV[place + 3])
    end
  end
  records[#records + 1] = record
end
count_all()
return records
