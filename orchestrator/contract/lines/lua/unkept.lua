-- The next image that waits to be kept. ARGV: key of the image that was just stored, which is removed ('' for none)
-- Returns {key, image, record or ''}, or {} where none waits.
local unkept = key('unkept')
if ARGV[1] ~= '' and redis.call('LINDEX', unkept, 0) == ARGV[1] then
  redis.call('LPOP', unkept)
  redis.call('HINCRBY', LINE, 'unkept_bytes', -#redis.call('LPOP', unkept))
end
local next_one = redis.call('LRANGE', unkept, 0, 1)
if not next_one[1] then return {} end
return {next_one[1], next_one[2], redis.call('HGET', ANSWERS, next_one[1]) or ''}
