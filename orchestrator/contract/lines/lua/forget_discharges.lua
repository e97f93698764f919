-- Forget late reports of where items went that are in a file. ARGV: for each: key, bin as in the file
for place = 1, #ARGV, 2 do
  if redis.call('HGET', key('late_discharged'), ARGV[place]) == ARGV[place + 1] then
    redis.call('HDEL', key('late_discharged'), ARGV[place])
  end
end
