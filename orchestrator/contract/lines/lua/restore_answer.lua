-- A request was answered before, and a worker has found that answer in the files: it is the answer again.
-- ARGV: key, record, the same record with the reason of a conflict, for clients that pushed another image
local id, archived, conflict = ARGV[1], ARGV[2], ARGV[3]
local waiting = find_waiting(id)
local first, record = store_record(id, archived)
if first then count('restored') end
if first and waiting.digest and not same_image(archived, waiting.digest) then record = conflict end
close_request(id, waiting, record)
count_all()
