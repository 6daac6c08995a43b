"""How answers that nobody waited for compare with those that were sent: sums, so that reports add up."""

from dataclasses import dataclass, fields, replace
from typing import TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """What was compared of one release that shadows a surface; times in seconds."""

    surface: str
    version: str
    searches: int = 0
    """Searches that both answered."""
    failures: int = 0
    """Searches that the shadow did not answer."""
    overlap_sum: float = 0.0
    """Over searches: share of the page's items that both had."""
    common_items: int = 0
    """Over searches: items that both had."""
    score_difference_sum: float = 0.0
    """Over common items: absolute difference of the scores."""
    rank_difference_sum: float = 0.0
    """Over common items: absolute difference of the ranks."""
    extra_seconds_sum: float = 0.0
    """Over searches: the shadow's time less the other's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What a release's closed gate saved and lost on a sample of the searches; times in seconds."""

    surface: str
    version: str
    searches: int = 0
    """Searches that were answered with the gate closed, and then once more with it open."""
    failures: int = 0
    """Searches that were not answered with the gate open."""
    other_items_sum: float = 0.0
    """Over searches: share of the page's items with the gate open that the page with it closed had not."""
    changed_pages: int = 0
    """Searches whose page would have had other items or another order."""
    saved_seconds_sum: float = 0.0
    """Over searches: the time that stages computed with the gate open, less that with it closed."""


Report = ShadowReport | GateReport
R = TypeVar("R", bound=Report)


def added(one: R, other: R) -> R:
    """Return both reports as one; asserts that they are of one kind and tell of the same release."""
    assert (type(one), one.surface, one.version) == (type(other), other.surface, other.version)
    sums = (field.name for field in fields(one) if field.name not in ("surface", "version"))
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in sums})
