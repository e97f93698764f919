-- Take the job's finalize lease: the right to publish the job, or to conclude its cancellation.   ARGV: worker, lease in ms
-- Returns {state, fence}; the fence is '' where another worker holds the lease, or the job cannot end yet, or this
-- worker leaves its end to others (leave_end.lua).
local state = field('state')
if not state then return {'unknown', ''} end
if state ~= 'finalizing' and state ~= 'cancelling' then return {state, ''} end
local now = lease_clock()
if number('finalizer_until') > now then return {state, ''} end
if state == 'cancelling' and redis.call('ZCOUNT', leases, now, '+inf') > 0 then return {state, ''} end
if tonumber(redis.call('HGET', avoided, 'end ' .. ARGV[1]) or 0) > now then return {state, ''} end
local fence = next_fence()
redis.call('HSET', job, 'finalizer_fence', fence, 'finalizer', ARGV[1], 'finalizer_until', now_ms() + tonumber(ARGV[2]))
return {state, tostring(fence)}
