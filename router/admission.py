"""How many requests a router works on at once; what exceeds it is refused quickly instead of queued."""

from collections.abc import Iterator
from contextlib import contextmanager

from shards.errors import Overloaded


class Admission:
    """A limit of requests in flight. Used from one event loop, so counting needs no lock."""

    def __init__(self, max_in_flight: int, *, retry_after_s: float = 0.1) -> None:
        self._max_in_flight = max_in_flight
        self._retry_after_s = retry_after_s
        self.in_flight = 0

    @property
    def busy(self) -> bool:
        """Return whether half of the places are taken: no time for work that nobody waits for."""
        return 2 * self.in_flight >= self._max_in_flight

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place for the time of the block; raises `Overloaded` when there is none."""
        if self.in_flight >= self._max_in_flight:
            raise Overloaded(
                f"{self.in_flight} requests are in flight, the limit", retry_after_s=self._retry_after_s
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
