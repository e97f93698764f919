-- What the job needs: a worker, a finalizer, or nothing.
-- ARGV: ms without a worker, after which a job is starving; the job's run, as its folder has it
-- Returns claim, starving, end, lister (the submitting process died while listing), look (whether the source is back),
-- held (the operator paused it), rebuild (the job, or this run of it, is not known), or nothing.
local ABANDONED_MS = 5000
local state = field('state')
if not state or number('run') < tonumber(ARGV[2]) then return 'rebuild' end
local now = lease_clock()
if state == 'finalizing' or state == 'cancelling' then
  local held = state == 'cancelling' and redis.call('ZCOUNT', leases, now, '+inf') > 0
  if number('finalizer_until') > now or held then return 'nothing' end
  return 'end'
end
if state ~= 'queued' and state ~= 'running' and state ~= 'paused' then return 'nothing' end
if field('listed') == '0' and number('lister_until') < now then return 'lister' end
if state == 'paused' then
  if field('paused_by_operator') then return 'held' end
  if number('look_at') > now then return 'nothing' end
  redis.call('HSET', job, 'look_at', now + LOOK_EVERY_MS)
  return 'look'
end
if has_shards(job, field('next'), field('num_shards'), now) then
  if redis.call('ZCOUNT', leases, now, '+inf') > 0 then return 'claim' end
  local since = tonumber(field('starving_since') or field('created_ms') or 0)
  local abandoned = redis.call('ZCARD', leases) > 0 -- its workers died: the job must not wait for two slices
  if now - since < (abandoned and ABANDONED_MS or tonumber(ARGV[1])) then return 'claim' end
  redis.call('HSET', job, 'starving_since', now)
  return 'starving'
end
if complete() then
  redis.call('HSET', job, 'state', 'finalizing')
  return 'end'
end
return 'nothing'
