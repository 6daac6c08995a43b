"""What a router counts of the events it records."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.status import word_of
from services.user_store import Recorded
from shards.measures import Counts, Distributions


class EventMeasures:
    """Figures of all requests to record events so far; written on the router's event loop."""

    def __init__(self) -> None:
        self.requests = Counts("status")
        self.request_s = Distributions()
        self.recorded = 0
        self.duplicates = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note how the request of this block ends, and what it took if it was answered."""
        began_s = time.monotonic()
        try:
            yield
        except BaseException as error:
            self.requests.add(word_of(error))
            raise
        self.requests.add("ok")
        self.request_s.observe(time.monotonic() - began_s)

    def became(self, recorded: Recorded) -> None:
        """Count events by what became of them."""
        self.recorded += recorded.recorded
        self.duplicates += recorded.duplicates
