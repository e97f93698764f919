-- Store answers of a worker. In time its verdict counts, after the deadline the fallback; the prediction is kept beside.
-- ARGV: for each answer: key, verdict, late verdict, rest, reason, cause, late cause
-- Returns for each 1 where it is the answer that stands as given, 0 where it came too late or another was first: a
--   worker whose call was not answered repeats it, and keeps the image that it would have kept
local stood = {}
for place = 1, #ARGV, 7 do
  local id = ARGV[place]
  local waiting, first = find_waiting(id), false
  if waiting.deadline and now <= tonumber(waiting.deadline) then
    first = finish(id, ARGV[place + 1], ARGV[place + 3], ARGV[place + 4], ARGV[place + 5], waiting)
  elseif waiting.deadline then
    keep_image(id)
    finish(id, ARGV[place + 2], ARGV[place + 3], 'late', ARGV[place + 6], waiting)
  else  -- it is answered: by this same answer, where the reply to it was lost and it is given again
    local record = redis.call('HGET', ANSWERS, id)
    first = record and record:find(ARGV[place + 1], 1, true) and record:find(ARGV[place + 3], 1, true)
  end
  stood[#stood + 1] = first and 1 or 0
end
count_all()
return stood
