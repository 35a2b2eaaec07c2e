-- One process's share of a backend's cap. KEYS[1]: what each process has, under its name: "share demand until".
-- ARGV: this process, the cap, its calls under way, how many it would have, the share that it keeps to now, how long
-- that counts (ms). Returns its share, how many all would have, and how many processes there are.
--
-- The shares of all are never more than the cap: a share grows by what nobody has. A smaller one counts once the process
-- keeps to it, which it says with its next call, and as its calls end.
local me, cap, running = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local demand, keeps_to, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local processes, held, demanded = {{me, demand}}, 0, demand
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local share, wanted, until_ms = string.match(all[i + 1], '(%d+) (%d+) (%d+)')
    if tonumber(until_ms) < now then
        redis.call('HDEL', KEYS[1], all[i])
    elseif all[i] ~= me then
        held = held + tonumber(share)
        demanded = demanded + tonumber(wanted)
        table.insert(processes, {all[i], tonumber(wanted)})
    end
end

-- The least demanding first: nobody gets more than it would have, and what it leaves is for the others. Of those that
-- want the same, another one is the last in each second: it gets what cannot be divided.
local count = #processes
table.sort(processes, function(one, other) return one[1] < other[1] end)
local turn = math.floor(now / 1000) % count
for i, process in ipairs(processes) do process[3] = (i + turn) % count end
table.sort(processes, function(one, other)
    if one[2] ~= other[2] then return one[2] < other[2] end
    return one[3] < other[3]
end)
local left, fair = cap, 0
for i, process in ipairs(processes) do
    local part = math.min(process[2], math.floor(left / (count - i + 1)))
    left = left - part
    if process[1] == me then fair = part end
end
-- What nobody wants now is divided as well, so that nobody has to ask before its next call.
for i, process in ipairs(processes) do
    if process[1] == me then fair = fair + math.floor(left / count) + ((count - i) < left % count and 1 or 0) end
end

local share = math.max(0, math.min(fair, cap - held))
local counted = math.max(share, keeps_to, running)
redis.call('HSET', KEYS[1], me, string.format('%d %d %d', counted, demand, now + lease))
redis.call('PEXPIRE', KEYS[1], lease)
return {share, demanded, count}
