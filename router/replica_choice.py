"""Which replica to ask: the cheaper of two, and not one that just failed. Pure."""

import random
from collections.abc import Callable, Mapping, Sequence

from router.routing_table import Endpoint

AVOID_S = 1.0
"""How long a replica that failed is avoided, and then how often one request tries it again."""

TOLERANCE = 2.0
"""Costs that differ by less say nothing: latencies of equal replicas do differ on a busy machine."""

_LEAST_LATENCY_S = 1e-6

LatencyOf = Callable[[Endpoint], float | None]
"""Seconds in which a replica is expected to answer; None where nothing is known of it."""


def choose(
    replicas: Sequence[Endpoint],
    *,
    in_flight: Mapping[Endpoint, int],
    latency_of: LatencyOf,
    failed_at: Mapping[Endpoint, float],
    ejected_until: Mapping[Endpoint, float],
    now: float,
    rng: random.Random,
    probe: bool = True,
) -> Endpoint:
    """Return the cheaper of two random replicas ("power of two choices", Mitzenmacher 2001).

    One that failed is left out until `AVOID_S` has passed; then it is chosen first, to `probe` it. When all
    of them failed, none is left out. Those that are ejected are left out, but never more than half of the
    replicas. Raises ValueError when there is none to choose from.
    """
    if not replicas:
        raise ValueError("there is no replica to choose from")
    pool = replicas
    if failed_at:
        due = [replica for replica in pool if now - failed_at.get(replica, now) >= AVOID_S]
        if probe and due:
            return min(due, key=lambda replica: failed_at[replica])
        pool = [replica for replica in pool if replica not in failed_at] or replicas
    if ejected_until:
        pool = _without_ejected(pool, ejected_until, now, most=len(replicas) // 2)
    if len(pool) == 1:
        return pool[0]
    return cheaper(*_two(pool, rng), in_flight=in_flight, latency_of=latency_of)


def cheaper(
    one: Endpoint, other: Endpoint, *, in_flight: Mapping[Endpoint, int], latency_of: LatencyOf
) -> Endpoint:
    """Return the replica with the lower cost, which is its latency times the requests before a new one.

    Where costs hardly differ the one with fewer requests in flight, and then the first. A replica of which
    nothing is known is taken to be as fast as the other.
    """
    busy, other_busy = in_flight.get(one, 0), in_flight.get(other, 0)
    latency_s, other_latency_s = latency_of(one), latency_of(other)
    if latency_s is not None and other_latency_s is not None:
        cost = max(latency_s, _LEAST_LATENCY_S) * (busy + 1)
        other_cost = max(other_latency_s, _LEAST_LATENCY_S) * (other_busy + 1)
        if cost > TOLERANCE * other_cost:
            return other
        if other_cost > TOLERANCE * cost:
            return one
    return other if other_busy < busy else one


def _two(pool: Sequence[Endpoint], rng: random.Random) -> tuple[Endpoint, Endpoint]:
    """Return two different replicas in random order; several times faster than `rng.sample`."""
    first = int(rng.random() * len(pool))
    second = int(rng.random() * (len(pool) - 1))
    return pool[first], pool[second + (second >= first)]


def _without_ejected(
    pool: Sequence[Endpoint], ejected_until: Mapping[Endpoint, float], now: float, *, most: int
) -> Sequence[Endpoint]:
    """Return the pool without those that are ejected, at most so many: the longest ejected, and never all."""
    ejected = [replica for replica in pool if ejected_until.get(replica, now) > now]
    if not ejected:
        return pool
    most = min(most, len(pool) - 1)
    left_out = sorted(ejected, key=lambda replica: -ejected_until[replica])[:most]
    return [replica for replica in pool if replica not in left_out]
