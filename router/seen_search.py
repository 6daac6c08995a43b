"""One search that has ended, as measures, spans and the log look at it."""

from dataclasses import dataclass

from router.answer import Answer
from services.codec import SearchRequest
from shards.release import Release


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSearch:
    """A search that has ended; without an answer where it failed, and without more where it was not read."""

    status: str
    took_s: float
    request_id: str = ""
    trace_id: str = ""
    generation: int = 0
    asked: SearchRequest | None = None
    release: Release | None = None
    answer: Answer | None = None
    error: str = ""

    @property
    def surface(self) -> str:
        """Return the surface that answered; callers may ask for others, of which there is no end."""
        return self.release.surface if self.release else "unknown"
