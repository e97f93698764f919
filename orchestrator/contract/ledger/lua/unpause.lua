-- End the pause of ARGV[1]; the job goes on unless the other side has paused it, too.
-- ARGV: by   Returns the state after that, or nil where the job is unknown.
local state = field('state')
if state ~= 'paused' then return state end
redis.call('HDEL', job, 'paused_by_' .. ARGV[1])
if ARGV[1] == 'storage' then redis.call('DEL', sourceless) end
if field('paused_by_operator') or field('paused_by_storage') then return state end
state = field('paused_from') or 'running' -- a restored job does not know
end_pause()
redis.call('HSET', job, 'state', state)
return state
