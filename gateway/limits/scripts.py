"""The scripts of the limits: each runs whole or not at all, by the server's own clock. Redis 6.2 and later, Valkey.

A rate is a number: when its allowance is full again (see `rate.py`). Calls in flight are a sorted set of leases by the
moment they run out, so that those of a process that was killed go by themselves. Every key expires.
"""

from __future__ import annotations

from gateway.cache.client import Script

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

# KEYS: the rates, then the sets of leases. ARGV: how many rates, the lease, how long it lasts (µs), each key's limit.
# Takes from all or from none. Answers {0}, or {which key refuses, µs to wait, µs until it is full}; when several do,
# the rate with the longest wait.
TAKE = Script(
    _NOW
    + """
local rates, lease, lasts = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local refused, longest, until_full, full_at = 0, 0, 0, {}
for i, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[i + 3])
  if i <= rates then
    local each = math.ceil(60000000 / limit)
    local whole = each * limit
    local at = tonumber(redis.call('GET', key) or 0) or 0
    at = math.min(math.max(at, now), now + whole)
    local wait = at + each - now - whole
    if wait > longest then
      refused, longest, until_full = i, wait, at - now
    end
    full_at[i] = at + each
  -- All leases are counted in no time; which of them have run out matters only when there are as many as may be.
  elseif refused == 0 and redis.call('ZCARD', key) >= limit and redis.call('ZCOUNT', key, now, '+inf') >= limit then
    refused = i
  end
end
if refused > 0 then
  return {refused, longest, until_full}
end
for i, key in ipairs(KEYS) do
  if i <= rates then
    redis.call('SET', key, string.format('%.0f', full_at[i]), 'PX', math.ceil((full_at[i] - now) / 1000) + 1000)
  else
    redis.call('ZADD', key, now + lasts, lease)
    redis.call('PEXPIRE', key, math.ceil(lasts / 1000) + 1000)
  end
end
return {0}
"""
)

# KEYS: sets of leases. ARGV: how long a lease lasts (µs), then for each set how many leases, and the leases.
# They are (put) in the set and last from now, also when they had run out or the server had lost them. Leases that have
# run out go, and those that end later than any can: the server's clock was put back.
RENEW = Script(
    _NOW
    + """
local lasts, at = tonumber(ARGV[1]), 2
for _, key in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count do
    redis.call('ZADD', key, now + lasts, ARGV[i])
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZREMRANGEBYSCORE', key, now + 2 * lasts, '+inf')
  redis.call('PEXPIRE', key, math.ceil(lasts / 1000) + 1000)
  at = at + count + 1
end
return 0
"""
)
