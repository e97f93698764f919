-- Shared by the scripts of turns: which jobs have shards to claim.

-- A job as its hash has it, or nil where it is of another kind or unknown.   prefix: of the keys of all jobs
local function look(id, prefix, kinds, now)
  local key = prefix .. id
  local facts = redis.call('HMGET', key, 'state', 'kind', 'priority', 'created_ms', 'vtime', 'next', 'num_shards',
    'version', 'model_format')
  if not kinds[facts[2]] then return nil end
  return {
    id = id, key = key, weight = WEIGHTS[facts[3]] or WEIGHTS.normal, created_ms = tonumber(facts[4] or 0),
    vtime = tonumber(facts[5] or nil), version = facts[8], model_format = facts[9],
    waits = (facts[1] == 'queued' or facts[1] == 'running') and has_shards(key, facts[6], facts[7], now),
  }
end

-- Must this worker leave the job to others, or could it do nothing for it a moment ago?
-- who: worker, version and formats; `barred` becomes the first job that it must leave: {id, version, model format}
-- found.last becomes whether it takes any other job first (avoid.lua)
local function avoids(who, found, now)
  if found.waits and is_barred(found.version, found.model_format, who.version, who.formats) then
    who.barred = who.barred or {found.id, found.version or '', found.model_format or ''}
    return true
  end
  local times = redis.call('HMGET', found.key .. ':avoided', who.worker, 'last ' .. who.worker)
  found.last = tonumber(times[2] or 0) > now
  return tonumber(times[1] or 0) > now
end

-- The classify jobs with shards to claim are kept in two sorted sets, so that a turn costs the same beside ten jobs
-- and beside thousands: by virtual time, and by the number of their last turn. Shards are claimed, handed back and
-- expire without the sets: a job is looked at before it gets a turn, and goes if it has none. All jobs are looked at
-- before every turn where they are few, else once in as many milliseconds as there are jobs (a look takes some
-- microseconds), and where a doorbell names one that is not in the sets.
local KINDS = {classify = true}
local FEW = 32
local AT_ONCE = 16

local Waiting = {}

-- turns: the hash of the queue's turns; active: the set of all active jobs
function Waiting.open(turns, active, prefix, now)
  local self = {
    turns = turns, vtimes = turns .. ':vtimes', order = turns .. ':order', prefix = prefix, now = now, seen = {},
  }
  self.number = tonumber(redis.call('HGET', turns, 'number') or 0)
  self.clock = tonumber(redis.call('HGET', turns, 'clock') or 0)
  local num_active = redis.call('SCARD', active)
  local age_ms = now - tonumber(redis.call('HGET', turns, 'surveyed_ms') or 0)
  if num_active <= FEW or age_ms >= num_active or age_ms < 0 then
    Waiting.survey(self, active)
    if num_active > FEW then redis.call('HSET', turns, 'surveyed_ms', now, 'total', self.total) end
  else
    self.total = tonumber(redis.call('HGET', turns, 'total') or 0)
  end
  return self
end

-- A job that has shards to claim, or nil; looked at once.
function Waiting.look(self, id)
  if self.seen[id] == nil then
    local found = look(id, self.prefix, KINDS, self.now)
    self.seen[id] = found and found.waits and found or false
  end
  return self.seen[id] or nil
end

-- Look at all jobs. A new one begins with the virtual time of the last turn, so that it neither waits nor holds up
-- others; so does one that had no work for a while.
function Waiting.survey(self, active)
  local known = {}
  self.total = 0
  for _, id in ipairs(redis.call('ZRANGE', self.vtimes, 0, -1)) do known[id] = true end
  for _, id in ipairs(redis.call('SMEMBERS', active)) do
    local found = Waiting.look(self, id)
    if found then
      self.total = self.total + found.weight
      if not known[id] then Waiting.add(self, found) end
      known[id] = nil
    end
  end
  for id in pairs(known) do Waiting.remove(self, id) end
end

function Waiting.add(self, found)
  redis.call('ZADD', self.vtimes, math.max(found.vtime or self.clock, self.clock), found.id)
  redis.call('ZADD', self.order, self.number, found.id)
end

function Waiting.remove(self, id)
  redis.call('ZREM', self.vtimes, id)
  redis.call('ZREM', self.order, id)
end

-- The first job of a sorted set that has shards to claim and that the worker does not avoid, or nil. One that it puts
-- last is taken where there is no other.
function Waiting.first(self, set, who)
  local start, last = 0, nil
  while true do
    local ids = redis.call('ZRANGE', set, start, start + AT_ONCE - 1)
    if #ids == 0 then return last end
    for _, id in ipairs(ids) do
      local found = Waiting.look(self, id)
      if not found then
        Waiting.remove(self, id)
      elseif avoids(who, found, self.now) then
        start = start + 1
      elseif found.last then
        last, start = last or found, start + 1
      else
        return found
      end
    end
  end
end
