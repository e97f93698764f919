-- A shard's part is on the disk.
-- KEYS: job, counts of the fleet
-- ARGV: shard, fence, num_rows, num_failed, given_up (0 or 1), number of time fields, pairs of a time field and the
--   number to add to it, pairs of a count of the fleet and the number to add to it
-- Returns {verdict, state}: committed, already, stale (another holds the shard now) or unknown.
local state = field('state')
if not state then return {'unknown', ''} end
if redis.call('GETBIT', done, ARGV[1]) == 1 then return {'already', state} end
if not holds(ARGV[1], ARGV[2]) then return {'stale', state} end
release_shard(ARGV[1])
redis.call('HDEL', job, 'trouble')
redis.call('HDEL', attempts, ARGV[1])
redis.call('SETBIT', done, ARGV[1], 1)
redis.call('HINCRBY', job, 'shards_done', 1)
redis.call('HINCRBY', job, 'num_done', ARGV[3])
redis.call('HINCRBY', job, 'num_failed', ARGV[4])
redis.call('HINCRBY', job, 'shards_given_up', ARGV[5])
local counts_from = 7 + 2 * tonumber(ARGV[6])
for i = 7, counts_from - 1, 2 do redis.call('HINCRBY', job, ARGV[i], ARGV[i + 1]) end
for i = counts_from, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
if state == 'running' or state == 'paused' then -- shards in work may be finished
  local limit = field('failure_limit')
  if limit and number('num_failed') > tonumber(limit) then
    state = 'cancelling'
    end_pause()
    redis.call('HSET', job, 'too_many_failures', 1)
  elseif complete() then
    state = 'finalizing'
    end_pause()
  end
  redis.call('HSET', job, 'state', state)
end
return {'committed', state}
