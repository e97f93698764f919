-- Cancel the job, unless it is being finalized already.
-- ARGV: reason ('' if the operator cancelled), run that is cancelled: a later one goes on
-- Returns the state after that, or nil where the job is unknown.
local state = field('state')
if number('run') > tonumber(ARGV[2]) then return state end
if state == 'queued' or state == 'running' or state == 'paused' then
  end_pause()
  state = 'cancelling'
  redis.call('HSET', job, 'state', state, 'error', ARGV[1])
end
return state
