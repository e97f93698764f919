-- A worker's turn is over: charge what it took instead of what was charged in advance.
-- KEYS: job, active, turns of the queue, doorbells of the queue, live workers
-- ARGV: prefix of all jobs, the job, worker, ms charged in advance, ms that it took, number of shards (0: the worker
--   could do nothing for the job, and leaves it to others for a while; '' if it does not say), its version and model
--   formats
-- Returns a job that has work for this worker, or nil where none has, or where enough doorbells wait already.
local AVOID_MS = 5000
local ALIVE_S = 10 -- as in live_workers.py
local SMOOTHING = 0.3 -- how much the last turn says of the time of a shard
local now = lease_clock()
local state = field('state')
local waiting = Waiting.open(KEYS[3], KEYS[2], ARGV[1], now)
if state == 'queued' or state == 'running' or state == 'paused' then
  if ARGV[6] == '0' then redis.call('HSET', avoided, ARGV[3], now + AVOID_MS) end
  local weight = WEIGHTS[field('priority')] or WEIGHTS.normal
  local delta = (ARGV[5] - ARGV[4]) / weight
  if field('vtime') then redis.call('HINCRBYFLOAT', job, 'vtime', delta) end
  if redis.call('ZSCORE', waiting.vtimes, ARGV[2]) then redis.call('ZINCRBY', waiting.vtimes, delta, ARGV[2]) end
  redis.call('HINCRBY', job, 'worker_ms', ARGV[5])
  if (tonumber(ARGV[6]) or 0) > 0 then
    local shard_ms, before = ARGV[5] / ARGV[6], field('shard_ms')
    if before then shard_ms = before + SMOOTHING * (shard_ms - before) end
    redis.call('HSET', job, 'shard_ms', shard_ms)
  end
end
-- A doorbell of which the work goes on is put back: so those that were rung one too many go here.
local num_alive = redis.call('ZCOUNT', KEYS[5], now / 1000 - ALIVE_S, '+inf')
if redis.call('LLEN', KEYS[4]) >= math.max(num_alive, 1) then return nil end
local who = {worker = ARGV[3], version = ARGV[7], formats = ARGV[8]}
local following = Waiting.first(waiting, waiting.vtimes, who)
return following and following.id
