"""What calls of one kind took lately: of each replica for the choice among them, of all for hedging."""

from router.hedging import QUANTILE
from router.peak_ewma import PeakEwma
from router.routing_table import Endpoint
from shards.streaming_quantile import updated

_MOST_DOUBLINGS = 7


class CallHistory:
    """Latencies of one method with the same models; times are monotonic seconds.

    Only answers count. A replica that fails within a millisecond is not a fast one.
    """

    __slots__ = ("_decay_s", "_given_up", "_replicas", "slow_s")

    def __init__(self, decay_s: float) -> None:
        self._decay_s = decay_s
        self._replicas: dict[Endpoint, PeakEwma] = {}
        self._given_up: dict[Endpoint, int] = {}
        """How many times in a row a replica was waited for longer than is usual, and in vain."""
        self.slow_s: float | None = None
        """The 95th percentile, None before the first answer."""

    def latency_s(self, replica: Endpoint, now: float) -> float | None:
        """Return in which time the replica is expected to answer, None where nothing is known of it."""
        known = self._replicas.get(replica)
        return None if known is None else known.at(now, self._decay_s)

    def answered(self, replica: Endpoint, took_s: float, now: float) -> None:
        """Note an answer."""
        self._given_up.pop(replica, None)
        self._note(replica, took_s, now)
        self.slow_s = updated(self.slow_s, took_s, quantile=QUANTILE)

    def waiting(self, replica: Endpoint, waited_s: float, now: float) -> None:
        """Note that an answer takes longer than this, if that is news."""
        if waited_s > (self.latency_s(replica, now) or 0.0):
            self._note(replica, waited_s, now)

    def given_up(self, replica: Endpoint, waited_s: float, now: float) -> None:
        """Note that there was no answer for so long, and that nobody waits for it any more.

        How long it would have taken nobody knows. So a replica that is given up again and again seems twice
        as slow each time, and is tried the less often.
        """
        if self.slow_s is None or waited_s <= self.slow_s:
            self.waiting(replica, waited_s, now)
            return
        times = self._given_up.get(replica, 0)
        self._given_up[replica] = min(times + 1, _MOST_DOUBLINGS)
        self.waiting(replica, waited_s * 2**times, now)
        self.slow_s = updated(self.slow_s, waited_s, quantile=QUANTILE)

    def retain(self, replicas: "set[Endpoint]", since_s: float) -> bool:
        """Forget all other replicas; returns whether one of these was asked since the moment."""
        self._replicas = {replica: known for replica, known in self._replicas.items() if replica in replicas}
        self._given_up = {replica: n for replica, n in self._given_up.items() if replica in replicas}
        return any(known.at_s >= since_s for known in self._replicas.values())

    def _note(self, replica: Endpoint, latency_s: float, now: float) -> None:
        known = self._replicas.get(replica)
        self._replicas[replica] = (
            known.updated(latency_s, now, self._decay_s) if known else PeakEwma(latency_s, now)
        )
