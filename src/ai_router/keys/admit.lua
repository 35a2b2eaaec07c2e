-- Admit one request of a key, or say which limit keeps it out; and look up values, so that both take one round trip.
--
-- KEYS: 1 the key's requests of the last minute, 2 its tokens of the last minute, 3 its requests under way;
--       further ones: names of values to look up.
-- ARGV: 1 the request's id, 2 requests a minute, 3 tokens a minute, 4 requests at a time (each 0: no limit),
--       5 the tokens that the request is taken to have, 6 for how many ms it counts as under way without a word,
--       further ones: ids of requests of the key that have ended.
-- Returns {limit, wait_ms, requests, requests_reset_ms, tokens, tokens_reset_ms, values}; limit: '' for admitted, else
-- 'requests', 'tokens' or 'concurrency'; wait_ms: when it may work; requests, tokens: used in the last minute.

local MINUTE = 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, max_requests, max_tokens, max_running = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, lease_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

for i = 7, #ARGV do
    redis.call('ZREM', KEYS[3], ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - MINUTE)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)

local requests = redis.call('ZCARD', KEYS[1])
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local requests_reset = oldest[2] and (oldest[2] + MINUTE - now) or 0

-- Tokens are counted by the second: a hash of {second: tokens}.
local used, first = 0, nil
if max_tokens > 0 then
    local seconds = redis.call('HGETALL', KEYS[2])
    for i = 1, #seconds, 2 do
        local ends = tonumber(seconds[i]) * 1000 + 1000 + MINUTE
        if ends <= now then
            redis.call('HDEL', KEYS[2], seconds[i])
        else
            used = used + tonumber(seconds[i + 1])
            if first == nil or ends < first then first = ends end
        end
    end
end
local tokens_reset = first and (first - now) or 0

local limit, wait = '', 0
if max_requests > 0 and requests >= max_requests then
    limit, wait = 'requests', requests_reset
elseif max_tokens > 0 and used > 0 and used + tokens > max_tokens then
    limit, wait = 'tokens', tokens_reset
elseif max_running > 0 and redis.call('ZCARD', KEYS[3]) >= max_running then
    limit = 'concurrency'
else
    if max_requests > 0 then
        redis.call('ZADD', KEYS[1], now, id)
        redis.call('PEXPIRE', KEYS[1], MINUTE)
        requests = requests + 1
        if requests == 1 then requests_reset = MINUTE end
    end
    if max_tokens > 0 then
        redis.call('HINCRBY', KEYS[2], math.floor(now / 1000), tokens)
        redis.call('PEXPIRE', KEYS[2], MINUTE + 1000)
        used = used + tokens
    end
    if max_running > 0 then
        redis.call('ZADD', KEYS[3], now + lease_ms, id)
        redis.call('PEXPIRE', KEYS[3], lease_ms)
    end
end

local values = {}
for i = 4, #KEYS do
    values[i - 3] = redis.call('GET', KEYS[i])
end
return {limit, wait, requests, requests_reset, used, tokens_reset, values}
