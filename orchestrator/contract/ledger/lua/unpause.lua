-- Let a job go on that was paused by ARGV[1]; another pause stays.
-- ARGV: by   Returns the state after that, or nil where the job is unknown.
local state = field('state')
if state ~= 'paused' or field('paused_by') ~= ARGV[1] then return state end
local before = field('paused_from')
end_pause()
state = before or 'running' -- a restored job does not know
redis.call('HSET', job, 'state', state)
return state
