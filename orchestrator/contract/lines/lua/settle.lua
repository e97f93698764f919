-- A client's deadline is over: what is the record? Where there is none, it becomes the late answer, or, where the
-- server knows no such request, the client's own.
-- Who pushed other bytes, or pushed after another client, ends no request before its deadline: that client's own decision
-- is returned, and not stored.
-- ARGV: client; for each: key, verdict, reason, digest, rest   Returns {record, ...}; nothing where the line is unknown
local line = facts('fallback', 'map_version')
if not line[1] then return {} end
local records = {}
for place = 2, #ARGV, 5 do
  local id = ARGV[place]
  local record = redis.call('HGET', ANSWERS, id)
  if not record then
    local first
    local waiting = request(id, 'deadline', 'digest', 'clients')
    local rest = '"map_version":' .. line[2] .. (ARGV[place + 4] ~= '' and ',' .. ARGV[place + 4] or '')
    local its_own = waiting[1] and waiting[2] == ARGV[place + 3] and waiting[3]:match('^%S+') == ARGV[1]
    if waiting[1] and not its_own and now < tonumber(waiting[1]) then
      record = record_of(id, ARGV[place + 1], rest, waiting[2], 0)
    elseif waiting[1] then
      first, record = finish_late(id)
    else
      local verdict, digest = ARGV[place + 1], ARGV[place + 3]
      first, record = finish(id, verdict, rest, ARGV[place + 2], cause_of(verdict), {digest = digest})
    end
  end
  records[#records + 1] = record
end
count_all()
return records
