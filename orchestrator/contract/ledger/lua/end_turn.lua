-- A worker's turn is over: charge what it took instead of what was charged in advance.
-- KEYS: job, active
-- ARGV: prefix of all jobs, worker, ms charged in advance, ms that it took, number of shards (0: the worker could do
--   nothing for the job, and leaves it to others for a while; '' if it does not say)
-- Returns a job that has work for this worker, or nil where none has.
local AVOID_MS = 5000
local SMOOTHING = 0.3 -- how much the last turn says of the time of a shard
local now = lease_clock()
local state = field('state')
if state == 'queued' or state == 'running' or state == 'paused' then
  if ARGV[5] == '0' then redis.call('HSET', avoided, ARGV[2], now + AVOID_MS) end
  local weight = WEIGHTS[field('priority')] or WEIGHTS.normal
  if field('vtime') then redis.call('HINCRBYFLOAT', job, 'vtime', (ARGV[4] - ARGV[3]) / weight) end
  redis.call('HINCRBY', job, 'worker_ms', ARGV[4])
  if (tonumber(ARGV[5]) or 0) > 0 then
    local shard_ms, before = ARGV[4] / ARGV[5], field('shard_ms')
    if before then shard_ms = before + SMOOTHING * (shard_ms - before) end
    redis.call('HSET', job, 'shard_ms', shard_ms)
  end
end
local waiting = survey(redis.call('SMEMBERS', KEYS[2]), ARGV[1], {classify = true}, ARGV[2], now)
return waiting[1] and waiting[1].id
