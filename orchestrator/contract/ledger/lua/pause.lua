-- Pause the job: the operator wants it, or no worker can read its source. A job may be paused by both.
-- ARGV: by, reason, worker that cannot read the source ('' if the operator pauses), then the workers that could
-- A worker that cannot read the source leaves the job to the others; it is paused once none of them can.
-- Returns the state after that, or nil where the job is unknown.
local state = field('state')
if state ~= 'queued' and state ~= 'running' and state ~= 'paused' then return state end
local pause = 'paused_by_' .. ARGV[1]
if field(pause) then
  redis.call('HSET', job, pause, ARGV[2])
  return state
end
if ARGV[3] ~= '' then
  redis.call('HSET', sourceless, ARGV[3], 1)
  for i = 4, #ARGV do
    if redis.call('HEXISTS', sourceless, ARGV[i]) == 0 then
      redis.call('HSET', job, 'trouble', ARGV[2])
      return state
    end
  end
end
local now = now_ms()
redis.call('HDEL', job, 'trouble')
redis.call('HSET', job, pause, ARGV[2])
if ARGV[1] == 'storage' then redis.call('HSET', job, 'look_at', now + LOOK_EVERY_MS) end
if state ~= 'paused' then redis.call('HSET', job, 'state', 'paused', 'paused_ms', now, 'paused_from', state) end
return 'paused'
