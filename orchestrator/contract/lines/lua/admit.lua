-- Take a request, unless it has been answered, waits already, or cannot be answered in time.
-- ARGV: key, digest, remaining ms, size, client, 'image' (stored just before) or 'path' or 'ask' (without the bytes), path,
--   ms that its client has tried before
-- Returns {verdict, detail}: admitted | in_flight | answered, record | conflict, record or ''
--   | busy, ms to come again | paused | too_large, limit | overdue | unknown; asked without bytes: welcome
local id, digest, remaining, size = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local client, kind = ARGV[5], ARGV[6]

local function refuse(verdict, detail)
  if kind == 'image' then redis.call('UNLINK', image_key(id, digest)) end
  count_all()
  return {verdict, detail}
end

local line = facts('paused', 'max_requests', 'max_bytes', 'bytes', 'max_image_bytes', 'fallback', 'has_degraded')
if not line[6] then return refuse('unknown', '') end

local record = redis.call('HGET', ANSWERS, id)
if record then
  return refuse(same_image(record, digest) and 'answered' or 'conflict', record)
end
local waiting = request(id, 'digest', 'clients')
if waiting[1] then
  if not string.find(' ' .. waiting[2] .. ' ', ' ' .. client .. ' ', 1, true) then
    redis.call('HSET', key('r:' .. id), 'clients', waiting[2] .. ' ' .. client)
  end
  if waiting[1] ~= digest then return refuse('conflict', '') end
  return {'in_flight', ''}
end

if remaining <= 0 then return refuse('overdue', '') end
if size > tonumber(line[5]) then return refuse('too_large', line[5]) end
if line[1] == '1' then
  count('refused:paused')
  return refuse('paused', '')
end
local num, bytes = redis.call('ZCARD', DEADLINES), tonumber(line[4] or 0)
if num >= tonumber(line[2]) or bytes + size > tonumber(line[3]) then
  count('refused:bound')
  return refuse('busy', '50')
end

-- When would a worker have it done? Earliest deadline first: what is due later does not delay it.
-- Returns ms too late (0: in time); nil without a living worker.
local deadline = now + remaining
local function too_late(per_image_field, lead_field)
  local speed, lead = 0, math.huge
  for _, entry in ipairs(redis.call('HVALS', CAPACITY)) do
    local values = {entry:match('^(%S+) (%S+) (%S+) (%S+) (%S+)')}
    local per_image = tonumber(values[per_image_field])
    if tonumber(values[1]) > now and per_image > 0 then
      speed = speed + 1 / per_image
      lead = math.min(lead, tonumber(values[lead_field]))
    end
  end
  if speed == 0 then return nil end
  local all_done = now + (num + 1) / speed + lead
  if all_done <= deadline then return 0 end  -- and before whatever is due later
  local ahead = redis.call('ZCOUNT', DEADLINES, '-inf', deadline)
  local late = now + ahead / speed + lead - deadline
  if late > 0 then return late end
  -- Those that are due later were promised their time, too; those due after everything is done have it.
  local later = redis.call('ZRANGEBYSCORE', DEADLINES, '(' .. string.format('%.0f', deadline),
    string.format('%.0f', math.ceil(all_done)), 'WITHSCORES', 'LIMIT', 0, 128)
  for place = 2, #later, 2 do
    local its_late = now + (ahead + place / 2) / speed + lead - tonumber(later[place])
    if its_late > 0 then return its_late end
  end
  return 0
end

local late = too_late(2, 3)
local degraded = 0
if late and late > 0 then
  local degraded_late = line[7] == '1' and too_late(4, 5)
  if degraded_late == 0 then
    degraded = 1
  else
    count('refused:busy')
    return refuse('busy', string.format('%.0f', math.max(1, math.ceil(late))))
  end
end
if kind == 'ask' then return {'welcome', ''} end
if kind == 'image' and redis.call('EXISTS', image_key(id, digest)) == 0 then return {'busy', '50'} end  -- no memory for it

redis.call('HSET', key('r:' .. id), 'kind', kind, 'path', ARGV[7], 'digest', digest, 'size', size, 'deadline', string.format('%.0f', deadline),
  'admitted', string.format('%.0f', now), 'clients', client, 'degraded', degraded,
  'tried', ARGV[8])
redis.call('ZADD', READY, deadline, id)
redis.call('ZADD', DEADLINES, deadline, id)
redis.call('HINCRBY', LINE, 'bytes', size)
count('admitted')
count_all()
wake()
return {'admitted', ''}
