"""What this router knows of replicas, and whom it asks by that: the holder of the rules' state."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router import ejection
from router.call_history import CallHistory
from router.ejection import EjectionLimits
from router.replica_choice import choose
from router.routing_table import Endpoint
from shards.release import ModelVersion

_NEVER = float("-inf")
_REMEMBERED_S = 600.0
_EJECTION = EjectionLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """How replicas are judged; a latency that nobody confirms is forgotten over `latency_decay_s`."""

    latency_decay_s: float = 2.0
    ejection: EjectionLimits = _EJECTION

    def __post_init__(self) -> None:
        if self.latency_decay_s <= 0:
            raise ValueError("latency_decay_s must be positive")


DEFAULTS = ReplicaSettings()


class ReplicaHealth:
    """Requests in flight, latencies, failures and answers of replicas, in monotonic seconds."""

    def __init__(self, rng: random.Random, settings: ReplicaSettings = DEFAULTS) -> None:
        self._rng = rng
        self._settings = settings
        self._in_flight: dict[Endpoint, int] = {}
        self._failed_at: dict[Endpoint, float] = {}
        self._heard_at: dict[Endpoint, float] = {}
        self._records: dict[Endpoint, ejection.Record] = {}
        self._ejected_until: dict[Endpoint, float] = {}
        self._histories: dict[tuple[str, tuple[ModelVersion, ...]], CallHistory] = {}

    def history(self, path: str, models: tuple[ModelVersion, ...]) -> CallHistory:
        """Return what calls of this method with these models took."""
        history = self._histories.get((path, models))
        if history is None:
            history = self._histories[path, models] = CallHistory(self._settings.latency_decay_s)
        return history

    def choose(
        self, replicas: Sequence[Endpoint], now: float, history: CallHistory, *, probe: bool = True
    ) -> Endpoint:
        """Return the replica to ask now; see `choose`. A probe is one request every `AVOID_S`."""
        if len(replicas) == 1:
            return replicas[0]
        chosen = choose(
            replicas,
            in_flight=self._in_flight,
            latency_of=lambda replica: history.latency_s(replica, now),
            failed_at=self._failed_at,
            ejected_until=self._ejected_until,
            now=now,
            rng=self._rng,
            probe=probe,
        )
        if chosen in self._failed_at:
            # Everybody else goes on to avoid it until the probe has its answer.
            self._failed_at[chosen] = now
        return chosen

    def began(self, replica: Endpoint) -> None:
        """Count a request in flight, until it `ended`."""
        self._in_flight[replica] = self._in_flight.get(replica, 0) + 1

    def ended(self, replica: Endpoint) -> None:
        """Count a request in flight no more."""
        left = self._in_flight[replica] - 1
        if left:
            self._in_flight[replica] = left
        else:
            del self._in_flight[replica]

    @property
    def in_flight(self) -> int:
        """Return how many requests to shards have neither ended nor been given up."""
        return sum(self._in_flight.values())

    def failed(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica could not be reached, refuses all work or did not answer in time."""
        self._failed_at[replica] = now

    def erred(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica answered with a fault of its own; too many of them eject it."""
        self._heard_at[replica] = now
        self._failed_at.pop(replica, None)
        record = ejection.failed(self._records.get(replica), now, self._settings.ejection)
        self._records[replica] = record
        if record.until_s > now:
            self._ejected_until[replica] = record.until_s

    def heard(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica lives, and forget that it could not be reached."""
        self._heard_at[replica] = now
        if self._failed_at:
            self._failed_at.pop(replica, None)

    def answered(self, replica: Endpoint, now: float) -> None:
        """Remember that the replica answers as it should."""
        self.heard(replica, now)
        if self._records and replica in self._records:
            self._absolve(replica, now)

    def _absolve(self, replica: Endpoint, now: float) -> None:
        record = ejection.answered(self._records[replica], now, self._settings.ejection)
        if record is None:
            del self._records[replica]
            self._ejected_until.pop(replica, None)
        else:
            self._records[replica] = record

    def ejected(self, replica: Endpoint, now: float) -> bool:
        """Return whether the replica is left out for its errors."""
        return self._ejected_until.get(replica, _NEVER) > now

    def well(self, replica: Endpoint, now: float) -> bool:
        """Return whether there is nothing against the replica: it is worth asking beside another."""
        return replica not in self._failed_at and not self.ejected(replica, now)

    def silent_since(self, replica: Endpoint, moment: float) -> bool:
        """Return whether the replica has answered nobody since the moment: then it may hang."""
        return self._heard_at.get(replica, _NEVER) < moment

    def retain(self, replicas: Iterable[Endpoint], now: float) -> None:
        """Forget what is known of replicas that are not among these, and of what nobody asked for long."""
        kept = set(replicas)
        for known in (self._failed_at, self._heard_at, self._ejected_until, self._records):
            for gone in known.keys() - kept:
                del known[gone]
        since_s = now - _REMEMBERED_S
        self._histories = {
            key: history for key, history in self._histories.items() if history.retain(kept, since_s)
        }
