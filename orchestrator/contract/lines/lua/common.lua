-- Shared by all scripts of lines. KEYS[1] is the prefix of one line: all its keys carry the same hash tag.
-- The server's clock is the only clock.
--
-- line          hash    the line as scripts need it: see enter.lua; bytes: of what waits
-- r:KEY         hash    a request that waits: kind ('image', or 'path' with path), digest, size, deadline, admitted,
--                       clients; tried: ms before it was admitted; deliveries, worker; degraded
-- i:DIGEST:KEY  string  its image, which no script handles: through Lua it would be copied several times
-- ready         zset    requests that no worker holds, by deadline
-- deadlines     zset    all requests that wait, held or not, by deadline
-- leases        zset    requests that a worker holds, by the end of its lease
-- taken:WORKER  list    names (DIGEST:KEY) of the images that a worker took with its last call
-- wake          list    wakes workers that wait for a request; no token stands for any request
-- answers       hash    records by key, until they move to files; answered: zset of their keys by time
-- replies:C     channel what client C receives
-- capacity      hash    by worker: until, ms per image, lead ms, and the same of the smaller model (see capacity.lua)
-- stats:MINUTE  hash    counts of a minute. The last minute with counts is the field minute of line; what is older is
--                       in stats, too: counts since the line was created
-- unkept        list    images of requests that were answered without a worker, until one stores them
-- discharged, delivered   hash: by key of an answer, where the item really went, and what a client decided alone
-- late_discharged         hash: the same of answers that are not on the server (any more)
-- keeper        string  the worker that moves answers now
-- line has a field clock: the server's time when a worker last swept, see follow_clock
local P = KEYS[1]
local MAX_DELIVERIES = 3
local MINUTES_KEPT_S = 7200
local UNKEPT_BYTES = 67108864
local MOST_ANSWERS = 250000  -- workers move them to files long before; without a living worker the oldest are dropped
local MOST_LATE_DISCHARGES = 100000
local CLOCK_SET_MS = 10000  -- smaller steps of the server's clock are not noticed
local BUCKETS_MS = {1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500,
  600, 800, 1000, 1200, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000, 10000, 15000, 20000, 30000, 60000}
-- Clients name reasons: only these become fields of the counts.
local REASONS = {next_bin = 1, degraded = 1, low_confidence = 1, late = 1, no_worker = 1, unreadable = 1, no_bin = 1,
  bin_full = 1, crashed = 1, busy = 1, paused = 1, no_server = 1}
local CAUSES = {queue = 1, decode = 1, device = 1, server = 1, paused = 1}

local function key(name) return P .. ':' .. name end
local LINE = key('line')
local READY = key('ready')
local DEADLINES = key('deadlines')
local LEASES = key('leases')
local ANSWERS = key('answers')
local ANSWERED = key('answered')
local CAPACITY = key('capacity')

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function facts(...) return redis.call('HMGET', LINE, ...) end
local function request(id, ...) return redis.call('HMGET', key('r:' .. id), ...) end
local function image_key(id, digest) return key('i:' .. digest .. ':' .. id) end

-- A minute is over that had counts: they are kept for a while, and belong to those of the whole time.
local function end_minute(this_minute)
  local last = facts('minute')[1]
  if last == this_minute then return end
  redis.call('HSET', LINE, 'minute', this_minute)
  if not last then return end
  local counted = redis.call('HGETALL', key('stats:' .. last))
  for place = 1, #counted, 2 do redis.call('HINCRBY', key('stats'), counted[place], counted[place + 1]) end
  redis.call('EXPIRE', key('stats:' .. last), MINUTES_KEPT_S)
end

-- Counted here, and written once by count_all: most scripts handle many requests.
local counts, freed_bytes = {}, 0
local function count(name, by) counts[name] = (counts[name] or 0) + (by or 1) end
local function count_all()
  if freed_bytes ~= 0 then redis.call('HINCRBY', LINE, 'bytes', -freed_bytes) end
  local minute, is_new = string.format('%d', now / 60000), false
  for name, by in pairs(counts) do
    is_new = redis.call('HINCRBY', key('stats:' .. minute), name, by) == by or is_new
  end
  if is_new then end_minute(minute) end
end

local function bucket(ms)
  for place = 1, #BUCKETS_MS do if ms <= BUCKETS_MS[place] then return BUCKETS_MS[place] end end
  return 'more'
end

local function counted_reason(reason)
  if reason == '' then return 'accept' end
  return REASONS[reason] and reason or 'other'
end

-- A client that is cut off meanwhile asks for the record when it is back, or at the deadline.
local function reply(client, id, record)
  redis.call('PUBLISH', key('replies:' .. client), #id .. ':' .. id .. record)
end

-- Whether a worker with this line open is alive: one that still opens it takes 0 ms per image.
local function has_worker()
  for _, entry in ipairs(redis.call('HVALS', CAPACITY)) do
    local until_ms, per_image = entry:match('^(%d+) (%S+)')
    if tonumber(until_ms) > now and tonumber(per_image) > 0 then return true end
  end
  return false
end

-- The cause in a verdict of a client, '' for none: as with reasons, only known ones become fields of the counts.
local function cause_of(verdict)
  local cause = cjson.decode('{' .. verdict .. '}').cause
  return CAUSES[cause] and cause or ''
end

-- What is known of a request that waits; admitted is nil where none does.
local function find_waiting(id)
  local found = request(id, 'admitted', 'clients', 'size', 'digest', 'deadline')
  return {admitted = found[1], clients = found[2], size = found[3], digest = found[4], deadline = found[5]}
end

-- Tell the clients of a request its answer, and forget the request.
local function close_request(id, waiting, record)
  for client in string.gmatch(waiting.clients or '', '%S+') do reply(client, id, record) end
  redis.call('ZREM', DEADLINES, id)
  if redis.call('ZREM', LEASES, id) == 0 then redis.call('ZREM', READY, id) end  -- never in both
  if not waiting.admitted then return end
  freed_bytes = freed_bytes + waiting.size
  redis.call('UNLINK', key('r:' .. id), image_key(id, waiting.digest))
end

-- Store a record, unless there is one: returns whether this is it, and the record that stands.
local function store_record(id, record)
  if redis.call('HSETNX', ANSWERS, id, record) == 0 then return false, redis.call('HGET', ANSWERS, id) end
  redis.call('ZADD', ANSWERED, now, id)
  if redis.call('ZCARD', ANSWERED) > MOST_ANSWERS then
    local oldest = redis.call('ZPOPMIN', ANSWERED)[1]
    for _, name in ipairs({'answers', 'discharged', 'delivered'}) do redis.call('HDEL', key(name), oldest) end
    count('answers_dropped')
  end
  return true, record
end

local function record_of(id, verdict, rest, digest, admitted)
  return '{"key":' .. cjson.encode(id) .. ',' .. verdict .. ',"digest":"' .. digest
    .. '","admitted_ms":' .. string.format('%.0f', admitted) .. ',"answered_ms":' .. string.format('%.0f', now)
    .. (rest ~= '' and ',' .. rest or '') .. '}'
end

-- Store the answer of a request, tell its clients, and forget the request. The first answer stands: returns whether
-- this is it, and the record that stands. verdict and rest are parts of a JSON object (answers.py); reason, cause: ''
-- for none. waiting: of find_waiting, or the digest alone of an image that the server does not have.
local function finish(id, verdict, rest, reason, cause, waiting)
  local admitted = waiting.admitted or 0  -- 0: the server did not have the request
  local first, record = store_record(id, record_of(id, verdict, rest, waiting.digest, admitted))
  if first then
    count('answers')
    count('reason:' .. counted_reason(reason))
    if cause ~= '' then count('cause:' .. cause) end
    if waiting.admitted then
      count('ms:' .. bucket(now - admitted))
      count('ms_sum', now - admitted)
    end
  end
  close_request(id, waiting, record)
  return first, record
end

-- Keep the image of a request that is answered without a worker until one stores it; the oldest go first.
local function keep_image(id)
  local waiting = request(id, 'kind', 'digest')
  if waiting[1] ~= 'image' or facts('keeps')[1] ~= '1' then return end
  local image = redis.call('GET', image_key(id, waiting[2]))
  if not image then return count('images_not_kept') end
  if #image > UNKEPT_BYTES then return count('images_not_kept') end
  redis.call('RPUSH', key('unkept'), id, image)
  local bytes = redis.call('HINCRBY', LINE, 'unkept_bytes', #image)
  while bytes > UNKEPT_BYTES do
    redis.call('LPOP', key('unkept'))
    bytes = redis.call('HINCRBY', LINE, 'unkept_bytes', -#redis.call('LPOP', key('unkept')))
    count('images_not_kept')
  end
end

local function fallback_verdict(reason, cause)
  local bin = facts('fallback')[1] or ''
  return '"bin":' .. cjson.encode(bin) .. ',"reason":"' .. reason .. '","cause":' .. (cause ~= '' and '"' .. cause .. '"' or 'null')
end

local function finish_with_fallback(id, reason, cause)
  keep_image(id)
  local version = facts('map_version')[1] or '0'
  return finish(id, fallback_verdict(reason, cause), '"map_version":' .. version, reason, cause, find_waiting(id))
end

-- Answer a request that cannot be predicted any more in time.
local function finish_late(id)
  if facts('paused')[1] == '1' then return finish_with_fallback(id, 'late', 'paused') end
  if not has_worker() then return finish_with_fallback(id, 'no_worker', 'queue') end
  local held = redis.call('ZSCORE', LEASES, id)
  return finish_with_fallback(id, 'late', held and 'device' or 'queue')
end

-- Let others have the requests of workers whose leases ran out; those that were delivered too often crash workers.
local function recover_expired()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 100)) do
    local waiting = request(id, 'deliveries', 'deadline')
    if tonumber(waiting[1] or 0) >= MAX_DELIVERIES then
      finish_with_fallback(id, 'crashed', '')
    else
      redis.call('ZREM', LEASES, id)
      redis.call('ZADD', READY, waiting[2], id)
      count('recovered')
    end
  end
end

-- Whether a record is of the same image.
local function same_image(record, digest) return string.find(record, '"digest":"' .. digest .. '"', 1, true) ~= nil end

-- If the server's clock was set since a worker last swept, move all times by as much: what waits keeps its time, and
-- leases of dead workers do not last for hours. Times that were stored after the step are kept.
-- elapsed: ms since this worker's last sweep; nil at its first
local function follow_clock(elapsed)
  local seen = tonumber(facts('clock')[1] or now)
  redis.call('HSET', LINE, 'clock', string.format('%.0f', now))
  local by = 0
  if now < seen then by = now - seen elseif elapsed then by = math.max(0, now - seen - elapsed) end
  if math.abs(by) < CLOCK_SET_MS then return end
  local function moved(at)
    at = tonumber(at)
    return string.format('%.0f', math.abs(at + by - now) < math.abs(at - now) and at + by or at)
  end
  for _, id in ipairs(redis.call('ZRANGE', DEADLINES, 0, -1)) do
    local waiting = request(id, 'deadline', 'admitted')
    if waiting[1] then
      local deadline = moved(waiting[1])
      redis.call('HSET', key('r:' .. id), 'deadline', deadline, 'admitted', moved(waiting[2]))
      redis.call('ZADD', DEADLINES, deadline, id)
      redis.call('ZADD', READY, 'XX', deadline, id)
    end
  end
  local held = redis.call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
  for place = 1, #held, 2 do redis.call('ZADD', LEASES, moved(held[place + 1]), held[place]) end
  local known = redis.call('HGETALL', CAPACITY)
  for place = 1, #known, 2 do
    local until_ms, rest = known[place + 1]:match('^(%d+)(.*)')
    redis.call('HSET', CAPACITY, known[place], moved(until_ms) .. rest)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ANSWERED, '(' .. now, '+inf')) do redis.call('ZADD', ANSWERED, now, id) end
  redis.call('DEL', key('keeper'))
end

-- Wake a worker that waits. A second token, where there are several workers: the first may go to one that is frozen.
local function wake()
  if redis.call('LLEN', key('wake')) > 0 then return end
  if redis.call('HLEN', CAPACITY) > 1 then redis.call('RPUSH', key('wake'), '1', '1') else redis.call('RPUSH', key('wake'), '1') end
end
