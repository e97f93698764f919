-- Ask for the job's end; a job that is being finalized is past that.
-- ARGV: reason ('' where the operator asked)   Returns the state after it, or nil where the job is unknown.
local state = field('state')
if state == 'queued' or state == 'running' then
  state = 'cancelling'
  redis.call('HSET', job, 'state', state, 'error', ARGV[1])
end
return state
