-- Take the right to end the job (finalize or conclude a cancellation).   ARGV: worker, lease in ms
-- Returns {state, fence}; the fence is '' where another has that right, or the job is not that far.
local state = field('state')
if not state then return {'unknown', ''} end
if state ~= 'finalizing' and state ~= 'cancelling' then return {state, ''} end
local now = now_ms()
if number('ender_until') > now then return {state, ''} end
if state == 'cancelling' and redis.call('ZCOUNT', leases, now, '+inf') > 0 then return {state, ''} end
local fence = next_fence()
redis.call('HSET', job, 'ender_fence', fence, 'ender', ARGV[1], 'ender_until', now + tonumber(ARGV[2]))
return {state, tostring(fence)}
