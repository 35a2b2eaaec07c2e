-- Reserve the most that a request of a key can cost, so that its budgets hold whatever all its requests cost together.
--
-- KEYS: 1 spent today, 2 spent this month, 3 the key's reservations {id: amount}, 4 when they run out.
-- ARGV: 1 the request's id, 2 the amount, 3 the budget of a day, 4 of a month (each -1: none), 5 for how many ms the
--       reservation holds without a word. All amounts in billionths of a dollar.
-- Returns '' for reserved; 'day' or 'month' for the budget that does not suffice; 'unknown' if what was spent is not
-- known here: see spend.lua.
--
-- A reservation that runs out is taken to have cost all of it: its process has died. It stays, as 0, so that a bill that
-- comes later is not counted again.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, amount = ARGV[1], tonumber(ARGV[2])
local budgets = {tonumber(ARGV[3]), tonumber(ARGV[4])}

for i = 1, 2 do
    if budgets[i] >= 0 and redis.call('EXISTS', KEYS[i]) == 0 then return 'unknown' end
end

for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now)) do
    local held = tonumber(redis.call('HGET', KEYS[3], other) or '0')
    for i = 1, 2 do
        if budgets[i] >= 0 then redis.call('INCRBY', KEYS[i], held) end
    end
    redis.call('HSET', KEYS[3], other, 0)
    redis.call('ZREM', KEYS[4], other)
end

local held = 0
for _, other in ipairs(redis.call('HVALS', KEYS[3])) do
    held = held + tonumber(other)
end
for i, name in ipairs({'day', 'month'}) do
    if budgets[i] >= 0 and tonumber(redis.call('GET', KEYS[i])) + held + amount > budgets[i] then return name end
end

redis.call('HINCRBY', KEYS[3], id, amount)
redis.call('ZADD', KEYS[4], now + tonumber(ARGV[5]), id)
for i = 3, 4 do
    redis.call('EXPIRE', KEYS[i], 86400)
end
return ''
