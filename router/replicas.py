"""Which replica to ask: the less busy of two, and not one that just failed."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from router.routing_table import Endpoint

AVOID_S = 1.0
"""How long a replica that failed is avoided, and then how often one request tries it again."""

_NEVER = float("-inf")


def choose(
    replicas: Sequence[Endpoint],
    *,
    in_flight: Mapping[Endpoint, int],
    failed_at: Mapping[Endpoint, float],
    now: float,
    rng: random.Random,
    probe: bool = True,
) -> Endpoint:
    """Return the less busy of two random replicas ("power of two choices", Mitzenmacher 2001).

    One that failed is left out until `AVOID_S` has passed; then it is chosen first, to `probe` it. When all
    of them failed, none is left out. Raises ValueError when there is none to choose from.
    """
    due = [replica for replica in replicas if now - failed_at.get(replica, now) >= AVOID_S]
    if probe and due:
        return min(due, key=lambda replica: failed_at[replica])
    pool = [replica for replica in replicas if replica not in failed_at] or list(replicas)
    if not pool:
        raise ValueError("there is no replica to choose from")
    pair = rng.sample(pool, min(2, len(pool)))
    return min(pair, key=lambda replica: in_flight.get(replica, 0))


class ReplicaHealth:
    """What this router knows of replicas: requests in flight, failures and answers, in monotonic seconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in_flight: Counter[Endpoint] = Counter()
        self._failed_at: dict[Endpoint, float] = {}
        self._heard_at: dict[Endpoint, float] = {}

    def choose(self, replicas: Sequence[Endpoint], now: float, *, probe: bool = True) -> Endpoint:
        """Return the replica to ask now; see `choose`. A probe is one request every `AVOID_S`."""
        chosen = choose(
            replicas,
            in_flight=self._in_flight,
            failed_at=self._failed_at,
            now=now,
            rng=self._rng,
            probe=probe,
        )
        if chosen in self._failed_at:
            # Everybody else goes on to avoid it until the probe has its answer.
            self._failed_at[chosen] = now
        return chosen

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
        """Remember that the replica could not be reached, refuses all work or did not answer in time."""
        self._failed_at[replica] = now

    def answered(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica answers, and forget its failures."""
        self._failed_at.pop(replica, None)
        self._heard_at[replica] = now

    def silent_since(self, replica: Endpoint, moment: float) -> bool:
        """Return whether the replica has answered nobody since the moment: then it may hang."""
        return self._heard_at.get(replica, _NEVER) < moment

    def retain(self, replicas: Iterable[Endpoint]) -> None:
        """Forget what is known of replicas that are not among these."""
        kept = set(replicas)
        self._failed_at = {replica: at for replica, at in self._failed_at.items() if replica in kept}
        self._heard_at = {replica: at for replica, at in self._heard_at.items() if replica in kept}
