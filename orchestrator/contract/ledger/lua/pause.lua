-- Pause the job: the operator wants it, or no worker can read its source.
-- ARGV: by, reason, worker that cannot read the source ('' if the operator pauses), then the workers that could
-- A worker that cannot read the source leaves the job to the others; it is paused once none of them can.
-- Returns the state after that, or nil where the job is unknown.
local state = field('state')
if state == 'paused' and field('paused_by') == ARGV[1] then redis.call('HSET', job, 'paused_reason', ARGV[2]) end
if state ~= 'queued' and state ~= 'running' then return state end
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
redis.call('HSET', job, 'state', 'paused', 'paused_by', ARGV[1], 'paused_reason', ARGV[2], 'paused_ms', now,
  'paused_from', state, 'look_at', now + LOOK_EVERY_MS)
return 'paused'
