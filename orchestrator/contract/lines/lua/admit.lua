-- Take requests, each unless it has been answered, waits already, or cannot be answered in time.
-- ARGV: client; for each: key, digest, remaining ms, size, 'image' (stored just before) or 'path' or 'ask' (without the
--   bytes), path, ms that its client has tried before
-- Returns for each {verdict, detail}: admitted | in_flight | answered, record | conflict, record or ''
--   | busy, ms to come again | paused | too_large, limit | overdue | unknown; asked without bytes: welcome
local client = ARGV[1]
local line = facts('paused', 'max_requests', 'max_bytes', 'bytes', 'max_image_bytes', 'fallback', 'has_degraded')
local num, bytes = redis.call('ZCARD', DEADLINES), tonumber(line[4] or 0)

-- What living workers can do: {ms per image, lead ms, and the same of the smaller model}.
local workers = {}
for _, entry in ipairs(redis.call('HVALS', CAPACITY)) do
  local until_ms, per_image, lead, small_per_image, small_lead = entry:match('^(%S+) (%S+) (%S+) (%S+) (%S+)')
  if tonumber(until_ms) > now then
    workers[#workers + 1] = {tonumber(per_image), tonumber(lead), tonumber(small_per_image), tonumber(small_lead)}
  end
end

-- When would a worker have it done? Earliest deadline first: what is due later does not delay it.
-- Returns ms too late (0: in time); nil without a living worker. per_image_at: 1, or 3 for the smaller model.
local function too_late(deadline, per_image_at)
  local speed, lead = 0, math.huge
  for _, worker in ipairs(workers) do
    if worker[per_image_at] > 0 then
      speed = speed + 1 / worker[per_image_at]
      lead = math.min(lead, worker[per_image_at + 1])
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

-- Returns verdict, detail, and whether the server needs the image.
local function admit(id, digest, remaining, size, kind, path, tried)
  if not line[6] then return 'unknown', '' end
  local record = redis.call('HGET', ANSWERS, id)
  if record then return same_image(record, digest) and 'answered' or 'conflict', record end
  local waiting = request(id, 'digest', 'clients')
  if waiting[1] then
    if not string.find(' ' .. waiting[2] .. ' ', ' ' .. client .. ' ', 1, true) then
      redis.call('HSET', key('r:' .. id), 'clients', waiting[2] .. ' ' .. client)
    end
    if waiting[1] ~= digest then return 'conflict', '' end
    return 'in_flight', '', true
  end

  if remaining <= 0 then return 'overdue', '' end
  if size > tonumber(line[5]) then return 'too_large', line[5] end
  if line[1] == '1' then
    count('refused:paused')
    return 'paused', ''
  end
  if num >= tonumber(line[2]) or bytes + size > tonumber(line[3]) then
    count('refused:bound')
    return 'busy', '50'
  end
  local deadline, degraded = now + remaining, 0
  local late = too_late(deadline, 1)
  if late and late > 0 then
    if line[7] ~= '1' or too_late(deadline, 3) ~= 0 then
      count('refused:busy')
      return 'busy', string.format('%.0f', math.max(1, math.ceil(late)))
    end
    degraded = 1
  end
  if kind == 'ask' then return 'welcome', '' end
  if kind == 'image' and redis.call('EXISTS', image_key(id, digest)) == 0 then return 'busy', '50' end  -- no memory for it

  redis.call('HSET', key('r:' .. id), 'kind', kind, 'path', path, 'digest', digest, 'size', size,
    'deadline', string.format('%.0f', deadline), 'admitted', string.format('%.0f', now), 'clients', client,
    'degraded', degraded, 'tried', tried)
  redis.call('ZADD', READY, deadline, id)
  redis.call('ZADD', DEADLINES, deadline, id)
  num, bytes, freed_bytes = num + 1, bytes + size, freed_bytes - size
  count('admitted')
  return 'admitted', '', true
end

local found = {}
for place = 2, #ARGV, 7 do
  local id, digest, kind = ARGV[place], ARGV[place + 1], ARGV[place + 4]
  local remaining, size = tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  local verdict, detail, needs_image = admit(id, digest, remaining, size, kind, ARGV[place + 5], ARGV[place + 6])
  if kind == 'image' and not needs_image then redis.call('UNLINK', image_key(id, digest)) end
  found[#found + 1] = {verdict, detail}
end
count_all()
if counts['admitted'] then wake() end
return found
