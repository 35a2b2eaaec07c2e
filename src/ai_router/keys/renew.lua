-- The requests of a key that one process has under way still are: renew their leases, and their reservations.
--
-- KEYS: 1 its requests under way, 2 its reservations {id: amount}, 3 when they run out.
-- ARGV: 1 for how many ms; then for each request: its id, whether it counts as under way (1 or 0), its reservation or ''.

local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV, 3 do
    if ARGV[i + 1] == '1' then
        redis.call('ZADD', KEYS[1], ends, ARGV[i])
        redis.call('PEXPIRE', KEYS[1], ARGV[1])
    end
    if ARGV[i + 2] ~= '' then
        -- The server may have been started anew.
        redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 2])
        if redis.call('HGET', KEYS[2], ARGV[i]) ~= '0' then redis.call('ZADD', KEYS[3], ends, ARGV[i]) end
        redis.call('EXPIRE', KEYS[2], 86400)
        redis.call('EXPIRE', KEYS[3], 86400)
    end
end
return 1
