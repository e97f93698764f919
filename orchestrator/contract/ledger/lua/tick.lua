-- A worker looks at the server's clock, every few seconds. If the clock was set since a worker last looked, leases and
-- other times that were stored before are moved, so that none is over early or lasts for hours.
-- KEYS: (unused), active, live workers, due webhooks, sweeper
-- ARGV: prefix of all jobs, whether it is this worker's first look   Returns the time in microseconds.
local LONGEST_MS = 30000 -- of a lease
local BACK_MS = 1000 -- smaller steps back only make leases last longer
local MOVE_COSTS_MS = 1000 -- so that leases of dead workers run out although those alive look too seldom
local now = now_ms()
local seen = clock_seen() or now
local time = redis.call('TIME')
redis.call('SET', CLOCK, now)
-- Forward: a clock that was set, or a server that was away. A worker that looks first after a time without any worker
-- finds the same; then leases of workers have run out. Listers are no workers: they may have been without their server.
local forward = now > seen + UNSEEN_MS
local back = now < seen - BACK_MS
local all = back or (forward and ARGV[2] == '0')
if back or forward then
  -- A time that was stored before the step and had not come yet. Others are kept: they have come, or are of after it.
  local function moved(at)
    at = tonumber(at or 0)
    if (forward and at > seen and at <= now) or (back and at > now + LONGEST_MS) then
      return now + math.max(0, math.min(at - seen - MOVE_COSTS_MS, LONGEST_MS))
    end
  end
  local function move_all(set)
    local found = redis.call('ZRANGE', set, 0, -1, 'WITHSCORES')
    for place = 1, #found, 2 do
      local at = moved(found[place + 1])
      if at then redis.call('ZADD', set, at, found[place]) end
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local key = ARGV[1] .. id
    if all then move_all(key .. ':leases') end
    for _, name in ipairs(all and {'lister_until', 'finalizer_until', 'look_at'} or {'lister_until'}) do
      local at = moved(redis.call('HGET', key, name))
      if at then redis.call('HSET', key, name, at) end
    end
    if back then redis.call('HSET', key, 'starving_since', now) end
    redis.call('DEL', key .. ':avoided')
  end
  if all then move_all(KEYS[4]) end
  if back then
    redis.call('DEL', KEYS[5])
    local heartbeats = redis.call('ZRANGEBYSCORE', KEYS[3], now / 1000, '+inf', 'WITHSCORES')
    for place = 1, #heartbeats, 2 do
      redis.call('ZADD', KEYS[3], heartbeats[place + 1] + (now - seen) / 1000, heartbeats[place])
    end
  end
end
return string.format('%d%06d', time[1], time[2])
