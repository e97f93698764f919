-- The listing grew.
-- ARGV: num_shards, num_images, listed (0 or 1), lister's lease in ms, failure limit ('' if none), run
-- Returns the state of the run, or nil where the job is unknown. A run that a later one followed has ended.
local state = field('state')
if not state then return nil end
if number('run') > tonumber(ARGV[6]) then return 'cancelled' end
redis.call('HSET', job, 'num_shards', math.max(number('num_shards'), tonumber(ARGV[1])),
  'num_images', math.max(number('num_images'), tonumber(ARGV[2])), 'lister_until', now_ms() + tonumber(ARGV[4]))
if ARGV[3] == '1' then redis.call('HSET', job, 'listed', 1) end
if ARGV[5] ~= '' then redis.call('HSET', job, 'failure_limit', ARGV[5]) end
if (state == 'queued' or state == 'running' or state == 'paused') and complete() then -- queued: without any shard
  end_pause()
  redis.call('HSET', job, 'state', 'finalizing')
  return 'finalizing'
end
return state
