-- A worker could do nothing for the job, and leaves it to others for a while.
-- ARGV: worker, ms; or 'last <worker>': it takes any other job first (turns.lua)
if field('state') then redis.call('HSET', avoided, ARGV[1], now_ms() + tonumber(ARGV[2])) end
