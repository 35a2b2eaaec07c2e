-- A request of a key has ended: put its bill in the place of its reservation, and correct its tokens.
--
-- KEYS: 1 spent today, 2 spent this month, 3 the key's reservations {id: amount}, 4 when they run out, 5 its tokens of the
--       last minute.
-- ARGV: 1 the request's id, 2 the bill in billionths of a dollar, or '' for all that was reserved, 3 tokens beyond those
--       that it was taken to have.

local id, bill, tokens = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = redis.call('HGET', KEYS[3], id)
redis.call('HDEL', KEYS[3], id)
redis.call('ZREM', KEYS[4], id)
-- 0: it had run out, and was counted then. Nothing: the server was started anew meanwhile.
if held ~= '0' then
    local amount = bill ~= '' and tonumber(bill) or tonumber(held or '0')
    for i = 1, 2 do
        if amount > 0 and redis.call('EXISTS', KEYS[i]) == 1 then redis.call('INCRBY', KEYS[i], amount) end
    end
end
if tokens ~= 0 and redis.call('EXISTS', KEYS[5]) == 1 then
    local second = redis.call('TIME')[1]
    redis.call('HINCRBY', KEYS[5], second, tokens)
end
return 1
