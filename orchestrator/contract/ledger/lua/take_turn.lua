-- Which classify job gets this worker's next turn: stride scheduling by worker time, and no job waits too long.
-- KEYS: the job that the doorbell names, active, turns of the queue
-- ARGV: prefix of all jobs, the job that the doorbell names, worker, longest turn in ms
-- Returns {job, turn in ms, most shards (0: any number), ms charged in advance}, or nil where no job has work.
local LAG_MS = 4 * ARGV[4] -- worker time that a job which fell behind can catch up with
local LONGEST_WAIT = 28 -- turns of others between two of a job, and two more for what comes in between

local now = lease_clock()
local state = field('state')
local looks = state == 'paused' and field('paused_by_storage') and not field('paused_by_operator')
if not state or looks then return {ARGV[2], ARGV[4], 0, 0} end -- the worker restores the job, or looks for its source

local waiting, idle = survey(redis.call('SMEMBERS', KEYS[2]), ARGV[1], {classify = true}, ARGV[3], now)
if #waiting == 0 then return nil end
local number = redis.call('HINCRBY', KEYS[3], 'number', 1)
local clock = tonumber(redis.call('HGET', KEYS[3], 'clock') or 0)

-- A job's virtual time is the worker time that it got, over its weight: the job with the least is next. A new one
-- begins with that of the last turn, so that it neither waits nor holds up others.
local total, chosen = 0, nil
for _, each in ipairs(waiting) do
  total = total + each.weight
  each.vtime = math.max(each.vtime or clock, clock - LAG_MS / each.weight)
  each.turn = each.turn or number - 1
  if not chosen or each.vtime < chosen.vtime or (each.vtime == chosen.vtime and each.turn < chosen.turn) then
    chosen = each
  end
end
clock = math.max(clock, chosen.vtime)

-- The job that has waited longest is next if else one of them would wait too long; at most every second turn, so that
-- weights count also beside many jobs.
table.sort(waiting, function(a, b) return a.turn < b.turn or (a.turn == b.turn and a.id < b.id) end)
local late = false
for place, each in ipairs(waiting) do late = late or number - each.turn + 2 * place > LONGEST_WAIT + 2 end
late = late and redis.call('HGET', KEYS[3], 'late') ~= '1'
if late then chosen = waiting[1] end
redis.call('HSET', KEYS[3], 'clock', clock, 'late', late and 1 or 0)

for _, each in ipairs(waiting) do redis.call('HSET', each.key, 'vtime', each.vtime, 'turn', each.turn) end
for _, each in ipairs(idle) do
  if each.turn then redis.call('HDEL', each.key, 'turn') end
  if each.vtime and each.vtime < clock then redis.call('HSET', each.key, 'vtime', clock) end
end

-- Beside others a turn is as long as the job's share of two longest turns, in whole shards: few hold a minute's shares.
local turn_ms, shards, charged = tonumber(ARGV[4]), 0, tonumber(ARGV[4])
if #waiting > 1 then
  turn_ms = math.min(turn_ms, math.ceil(2 * turn_ms * chosen.weight / total))
  charged = turn_ms
  local shard_ms = tonumber(redis.call('HGET', chosen.key, 'shard_ms') or 0)
  if shard_ms > 0 then
    shards = math.max(1, math.floor(turn_ms / shard_ms + 0.5))
    charged = math.ceil(shards * shard_ms)
  end
end
redis.call('HSET', chosen.key, 'vtime', chosen.vtime + charged / chosen.weight, 'turn', number)
return {chosen.id, turn_ms, shards, charged}
