-- Which training or evaluation is next: that of the highest priority which has waited longest. Those that this worker
-- puts last come after all others.
-- KEYS: the job that the doorbell names, active
-- ARGV: prefix of all jobs, the job that the doorbell names, worker, its version and model formats
-- Returns a job, or nil where none has work; where only such have any that the worker must leave to others:
-- {one of these, its version, its model format}.
if not field('state') then return ARGV[2] end -- the worker restores it
local now, waiting, who = lease_clock(), {}, {worker = ARGV[3], version = ARGV[4], formats = ARGV[5]}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local found = look(id, ARGV[1], {train = true, evaluate = true}, now)
  if found and found.waits and not avoids(who, found, now) then
    waiting[#waiting + 1] = found
  end
end
table.sort(waiting, function(a, b)
  if a.last ~= b.last then return b.last end
  if a.weight ~= b.weight then return a.weight > b.weight end
  if a.created_ms ~= b.created_ms then return a.created_ms < b.created_ms end
  return a.id < b.id
end)
return waiting[1] and waiting[1].id or who.barred
