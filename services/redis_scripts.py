"""What Redis does in one step with the users of the store; no other client sees it half done.

    PREFIX:events:USER    sorted set of a user's events: score timestamp in ms, member ARRIVAL ACTION NUL ITEM
    PREFIX:features:USER  a user's features as JSON
    PREFIX:event-ids      sorted set of the events' ids, as digests: score arrival
    PREFIX:arrivals       how many events have come

An arrival is a number of 16 hexadecimal digits: members of one score are in the order of their bytes, and so
events of one moment in the order they came. Redis checks its memory before a script begins, and writes what
a script did to its log as one.
"""

ARRIVAL_DIGITS = 16

GET = """
local before = '(' .. ARGV[1]
local found = redis.call('ZREVRANGEBYSCORE', KEYS[2], before, '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local members, moments = {}, {}
for at = #found, 1, -2 do
  members[#members + 1] = string.sub(found[at - 1], 17)
  moments[#moments + 1] = found[at]
end
return {redis.call('GET', KEYS[1]), table.concat(members, '\\0'), table.concat(moments, ' ')}
"""
"""KEYS: features, events. ARGV: moment, limit. Returns the features; ACTION NUL ITEM of each event, oldest
first, with NUL in between; and their moments. Three texts, as hundreds of short ones take long to read."""

RECORD = """
for index, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  local wanted = index == 2 and 'string' or 'zset'
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind)
  end
end
local ids, arrivals = KEYS[1], KEYS[2]
local recorded, grown = 0, {}
for at = 3, #ARGV, 4 do
  local arrival = redis.call('INCR', arrivals)
  if redis.call('ZADD', ids, 'NX', arrival, ARGV[at]) == 1 then
    local events = KEYS[ARGV[at + 1] + 0]
    redis.call('ZADD', events, ARGV[at + 2], string.format('%016x', arrival) .. ARGV[at + 3])
    grown[events] = true
    recorded = recorded + 1
  end
end
for events in pairs(grown) do
  redis.call('ZREMRANGEBYRANK', events, 0, -ARGV[1] - 1)
end
redis.call('ZREMRANGEBYRANK', ids, 0, -ARGV[2] - 1)
return recorded
"""
"""KEYS: event ids, arrivals, the events of each user. ARGV: events kept of a user, ids kept; then for each
event its id's digest, the index of its user's key, its timestamp, its action NUL item. Returns how many
were new."""
