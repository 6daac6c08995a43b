"""How the answers of a shadow compare with those that were sent: sums, so that reports add up."""

from dataclasses import dataclass, fields, replace


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

    def plus(self, other: "ShadowReport") -> "ShadowReport":
        """Return both reports as one; asserts that they tell of the same release."""
        assert (self.surface, self.version) == (other.surface, other.version)
        sums = (field.name for field in fields(self) if field.name not in ("surface", "version"))
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in sums})
