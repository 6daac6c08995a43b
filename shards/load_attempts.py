"""Loads of one bundle that failed in a row: how long to wait, and when to give up; pure."""

from dataclasses import dataclass

from shards.errors import FailedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """Waits double from `backoff_s` to `max_backoff_s`; after `attempts` failures nobody tries again."""

    attempts: int = 3
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff_s < 0 or self.max_backoff_s < self.backoff_s:
            raise ValueError("attempts must be at least 1 and 0 <= backoff_s <= max_backoff_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAttempts:
    """Failures so far, the last one's reason, and when the next attempt may be made."""

    failures: int = 0
    error: str = ""
    retry_s: float = 0.0
    given_up: bool = False

    def failed(self, now_s: float, error: str, limits: AttemptLimits) -> "LoadAttempts":
        """Return what follows one more failure."""
        failures = self.failures + 1
        wait_s = min(limits.max_backoff_s, limits.backoff_s * 2.0 ** (failures - 1))
        return LoadAttempts(
            failures=failures,
            error=error,
            retry_s=now_s + wait_s,
            given_up=failures >= limits.attempts,
        )

    def check(self, now_s: float, what: str) -> None:
        """Raise FailedModel with the reason where no attempt may be made now."""
        if self.given_up:
            raise FailedModel(f"{what} failed to load {self.failures} times, the last time: {self.error}")
        if now_s < self.retry_s:
            wait_s = self.retry_s - now_s
            raise FailedModel(f"{what} failed to load and is tried again in {wait_s:.1f} s: {self.error}")
