"""How a release did on held-out queries beside the one that was live: what its deployment was decided by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of both releases; `gain` is positive where the candidate is better, `error` half its 95 %.

    `worse` is a loss of more than `tolerated` that chance does not explain.
    """

    name: str
    live: float
    candidate: float
    gain: float
    error: float
    tolerated: float

    @property
    def worse(self) -> bool:
        """Return whether the candidate lost too much."""
        return self.gain < -self.tolerated and self.gain + self.error < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseQuality:
    """What was measured against which release; without measures they could not be compared.

    `override_reason` is why it was deployed nevertheless; empty where nothing had to be overridden.
    """

    live_version: str = ""
    queries: int = 0
    measures: tuple[Measure, ...] = ()
    override_reason: str = ""

    @property
    def worse(self) -> tuple[Measure, ...]:
        """Return what is worse."""
        return tuple(measure for measure in self.measures if measure.worse)
