-- What a worker can do now. ARGV: worker, for how many ms that counts, 'ms-per-image lead-ms ms-per-image lead-ms',
--   facts as JSON ('' removes the worker)
local FORGET_WORKER_MS = 3600000
local worker, facts_json = ARGV[1], ARGV[4]
if facts_json == '' then
  redis.call('HDEL', CAPACITY, worker)
  redis.call('HDEL', key('workers'), worker)
  redis.call('UNLINK', key('taken:' .. worker))
  return
end
redis.call('HSET', CAPACITY, worker, string.format('%.0f', now + tonumber(ARGV[2])) .. ' ' .. ARGV[3])
redis.call('HSET', key('workers'), worker, facts_json)
local known = redis.call('HGETALL', CAPACITY)
for place = 1, #known, 2 do
  if tonumber(known[place + 1]:match('^(%d+)')) < now - FORGET_WORKER_MS then
    redis.call('HDEL', CAPACITY, known[place])
    redis.call('HDEL', key('workers'), known[place])
    redis.call('UNLINK', key('taken:' .. known[place]))
  end
end
