"""Which replica to ask: the less busy of two, and not one that just failed."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from router.routing_table import Endpoint

AVOID_S = 1.0
"""How long a replica that failed is avoided; about the time a shard needs to be noticed as gone."""


def choose(
    replicas: Sequence[Endpoint],
    *,
    in_flight: Mapping[Endpoint, int],
    failed_at: Mapping[Endpoint, float],
    now: float,
    rng: random.Random,
) -> Endpoint:
    """Return the less busy of two random replicas ("power of two choices", Mitzenmacher 2001).

    A replica that failed less than `AVOID_S` before `now` counts only when all of them did.
    Raises ValueError when there is none to choose from.
    """
    healthy = [replica for replica in replicas if now - failed_at.get(replica, -AVOID_S) >= AVOID_S]
    pool = healthy or list(replicas)
    if not pool:
        raise ValueError("there is no replica to choose from")
    pair = rng.sample(pool, min(2, len(pool)))
    return min(pair, key=lambda replica: in_flight.get(replica, 0))


class ReplicaHealth:
    """What this router knows of the replicas: requests in flight, moments of failure in monotonic seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in_flight: Counter[Endpoint] = Counter()
        self._failed_at: dict[Endpoint, float] = {}

    def choose(self, replicas: Sequence[Endpoint], now: float) -> Endpoint:
        """Return the replica to ask now; see `choose`."""
        return choose(replicas, in_flight=self._in_flight, failed_at=self._failed_at, now=now, rng=self._rng)

    @contextmanager
    def asking(self, replica: Endpoint) -> Iterator[None]:
        """Count a request in flight for the time of the block."""
        self._in_flight[replica] += 1
        try:
            yield
        finally:
            self._in_flight[replica] -= 1
            if not self._in_flight[replica]:
                del self._in_flight[replica]

    def failed(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica could not be reached or did not answer in time."""
        self._failed_at[replica] = now

    def answered(self, replica: Endpoint) -> None:
        """Forget the failures of a replica that answers."""
        self._failed_at.pop(replica, None)

    def retain(self, replicas: Iterable[Endpoint]) -> None:
        """Forget the failures of replicas that are not among these."""
        kept = set(replicas)
        self._failed_at = {replica: at for replica, at in self._failed_at.items() if replica in kept}
