-- Shared by all scripts. KEYS[1] is the prefix of one job: all its keys carry the same hash tag.
-- The server's clock is the only clock: leases of many machines are compared with it. It may be set while jobs run:
-- see tick.lua.
local job = KEYS[1]
local leases, holders = job .. ':leases', job .. ':holders'
local returned, done, attempts = job .. ':returned', job .. ':done', job .. ':attempts'
local sourceless = job .. ':sourceless' -- the workers that cannot read the job's source
local avoided = job .. ':avoided' -- the workers that could do nothing for the job, or its end, and until when
local LOOK_EVERY_MS = 5000 -- how often somebody looks whether the source of a paused job is back
local CLOCK = string.match(job, '^{[^}]*}') .. ':clock' -- what the clock was when a worker last looked, in ms
local UNSEEN_MS = 10000 -- living workers look more often: after that the clock was set, or the server was away

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function clock_seen() return tonumber(redis.call('GET', CLOCK) or nil) end

-- The time by which leases run out. If nobody has looked at the clock for long, it is when somebody last did: until a
-- worker has looked (tick.lua), no lease runs out whose holder may be alive.
local function lease_clock()
  local now, seen = now_ms(), clock_seen()
  return seen and now > seen + UNSEEN_MS and seen or now
end

local function field(name) return redis.call('HGET', job, name) end
local function number(name) return tonumber(field(name) or 0) end

-- Fencing numbers start from the clock, so they keep rising after the server was emptied.
local function next_fence()
  local fence = math.max(now_ms(), number('fence') + 1)
  redis.call('HSET', job, 'fence', fence)
  return fence
end

-- Is (shard, fence) what the ledger says of the shard's holder?
local function holds(shard, fence)
  local holder = redis.call('HGET', holders, shard)
  return holder and string.match(holder, '^(%d+)') == tostring(fence)
end

local function release_shard(shard)
  redis.call('ZREM', leases, shard)
  redis.call('HDEL', holders, shard)
end

local function end_pause()
  redis.call('HDEL', job, 'paused_by_operator', 'paused_by_storage', 'paused_ms', 'paused_from', 'look_at')
  redis.call('DEL', sourceless)
end

-- Has a job shards to claim?   key: the prefix of its keys; next_shard, num_shards: its fields `next` and `num_shards`
local function has_shards(key, next_shard, num_shards, now)
  return tonumber(next_shard or 0) < tonumber(num_shards or 0) or redis.call('ZCARD', key .. ':returned') > 0
    or redis.call('ZCOUNT', key .. ':leases', '-inf', now) > 0
end

-- A job whose shards are all listed and done is ready to be finalized.
local function complete()
  return field('listed') == '1' and number('shards_done') >= number('num_shards')
end

-- Must a worker leave a job to others: another version began it, or it reads no model of that format?
-- version, format: of the job, or false. own: the worker's version. formats: that it reads, as ',1,2,'
local function is_barred(version, format, own, formats)
  return (version and version ~= own) or (format and not string.find(formats, ',' .. format .. ',', 1, true)) or false
end

local WEIGHTS = {high = 16, normal = 4, low = 1}
