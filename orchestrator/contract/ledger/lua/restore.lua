-- Enter a job again from its folder.
-- KEYS: job, active, outputs, submission key (or '')
-- ARGV: id, output (or ''), fingerprint, key's TTL in s, replace (0 or 1), done bitmap, lister's lease in ms, run,
--   the caller's clock in ms: fences begin above it, too, in case the server's was set back; field, value, ...
-- Returns 1, or 0 where the ledger knows the job's run and `replace` is 0, or knows a later one.
local run = tonumber(ARGV[8])
if field('state') and (number('run') > run or number('run') == run and ARGV[5] == '0') then return 0 end
local fence = math.max(next_fence(), tonumber(ARGV[9]))
redis.call('DEL', job, leases, holders, returned, done, attempts, sourceless, avoided)
redis.call('HSET', job, 'fence', fence, 'restored_fence', fence, 'lister_until', now_ms() + tonumber(ARGV[7]),
  'run', run, unpack(ARGV, 10))
redis.call('SET', done, ARGV[6])
redis.call('SADD', KEYS[2], ARGV[1])
if ARGV[2] ~= '' then redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[1]) end
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[3], 'EX', ARGV[4], 'NX') end
local state = field('state')
if (state == 'running' or state == 'paused') and complete() then
  end_pause()
  redis.call('HSET', job, 'state', 'finalizing')
end
return 1
