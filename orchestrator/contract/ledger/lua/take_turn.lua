-- Which classify job gets this worker's next turn: stride scheduling by worker time, and no job waits too long.
-- KEYS: the job that the doorbell names, active, turns of the queue
-- ARGV: prefix of all jobs, the job that the doorbell names, worker, longest turn in ms, its version and model formats
-- Returns {job, turn in ms, most shards (0: any number), ms charged in advance}, or nil where no job has work; where
-- only such have any that the worker must leave to others: {'', one of these, its version, its model format}.
local LAG_MS = 4 * ARGV[4] -- worker time that a job which fell behind can catch up with
local LONGEST_WAIT = 28 -- turns of others between two of a job, and two more for what comes in between

local now = lease_clock()
local state = field('state')
local looks = state == 'paused' and field('paused_by_storage') and not field('paused_by_operator')
if not state or looks then return {ARGV[2], ARGV[4], 0, 0} end -- the worker restores the job, or looks for its source

local waiting = Waiting.open(KEYS[3], KEYS[2], ARGV[1], now)
if not redis.call('ZSCORE', waiting.vtimes, ARGV[2]) then
  local named = Waiting.look(waiting, ARGV[2])
  if named then Waiting.add(waiting, named) end
end

-- A job's virtual time is the worker time that it got, over its weight: the job with the least is next.
local who = {worker = ARGV[3], version = ARGV[5], formats = ARGV[6]}
local chosen = Waiting.first(waiting, waiting.vtimes, who)
if not chosen then return who.barred and {'', unpack(who.barred)} end
local number = redis.call('HINCRBY', KEYS[3], 'number', 1)

-- The virtual time of a job in the sets, which lags by LAG_MS at most.
local function vtime_of(found)
  return math.max(tonumber(redis.call('ZSCORE', waiting.vtimes, found.id)), waiting.clock - LAG_MS / found.weight)
end
local clock = math.max(waiting.clock, vtime_of(chosen))

-- The job that has waited longest is next if else one of them would wait too long; at most every second turn, so that
-- weights count also beside many jobs. Beside more jobs than that many turns there is always such a job.
local num_waiting, total = redis.call('ZCARD', waiting.order), waiting.total
local late = num_waiting > LONGEST_WAIT / 2
if not late then
  local scored = redis.call('ZRANGE', waiting.order, 0, -1, 'WITHSCORES')
  num_waiting, total = 0, 0
  for i = 1, #scored, 2 do
    local found = Waiting.look(waiting, scored[i])
    if found and not avoids(who, found, now) then
      total, num_waiting = total + found.weight, num_waiting + 1
      late = late or number - scored[i + 1] + 2 * num_waiting > LONGEST_WAIT + 2
    end
  end
end
late = late and redis.call('HGET', KEYS[3], 'late') ~= '1'
if late then chosen = Waiting.first(waiting, waiting.order, who) end
redis.call('HSET', KEYS[3], 'clock', clock, 'late', late and 1 or 0)

-- Beside others a turn is as long as the job's share of two longest turns, in whole shards: few hold a minute's shares.
local turn_ms, shards, charged = tonumber(ARGV[4]), 0, tonumber(ARGV[4])
if num_waiting > 1 then
  turn_ms = math.min(turn_ms, math.ceil(2 * turn_ms * chosen.weight / math.max(total, chosen.weight)))
  charged = turn_ms
  local shard_ms = tonumber(redis.call('HGET', chosen.key, 'shard_ms') or 0)
  if shard_ms > 0 then
    shards = math.max(1, math.floor(turn_ms / shard_ms + 0.5))
    charged = math.ceil(shards * shard_ms)
  end
end
local vtime = vtime_of(chosen) + charged / chosen.weight
redis.call('ZADD', waiting.vtimes, vtime, chosen.id)
redis.call('ZADD', waiting.order, number, chosen.id)
redis.call('HSET', chosen.key, 'vtime', vtime)
return {chosen.id, turn_ms, shards, charged}
