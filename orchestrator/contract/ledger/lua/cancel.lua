-- Cancel the job, unless it is being finalized already.
-- ARGV: reason ('' if the operator cancelled)   Returns the state after that, or nil where the job is unknown.
local state = field('state')
if state == 'queued' or state == 'running' or state == 'paused' then
  end_pause()
  state = 'cancelling'
  redis.call('HSET', job, 'state', state, 'error', ARGV[1])
end
return state
