"""What the events of a user count as keys of a look-up, by kind and age."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shards.search_context import History

Weights = Mapping[str, float]
"""Keys of one search and what each of them counts."""

_MS_PER_DAY = 86_400_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWeights:
    """An event counts 0.5 ** (age / half_life_days), or 1 where there is no half life.

    Only events of `actions` count, if any are named, and none that is older than `expires_days`. An item's
    events add up; with `once` its newest one counts alone. With `newest_only` an item counts only where the
    newest thing that the user did with it is one of `actions`.
    """

    half_life_days: float | None = None
    actions: tuple[str, ...] = ()
    once: bool = False
    expires_days: float | None = None
    newest_only: bool = False

    def __post_init__(self) -> None:
        if self.half_life_days is not None and not self.half_life_days > 0:
            raise ValueError("half_life_days must be above 0")
        if self.expires_days is not None and not self.expires_days > 0:
            raise ValueError("expires_days must be above 0")

    def of(self, history: History, now_ms: int) -> Weights:
        """Return the items that count, and how much."""
        weights: dict[str, float] = {}
        for item_id, age_days in self._counting(history, now_ms):
            weight = 1.0 if self.half_life_days is None else 0.5 ** (age_days / self.half_life_days)
            weights[item_id] = weight if self.once else weights.get(item_id, 0.0) + weight
        return weights

    def _counting(self, history: History, now_ms: int) -> Iterator[tuple[str, float]]:
        """Yield the item and the age of each event that counts, oldest first."""
        last = dict(zip(history.item_ids, history.actions, strict=True)) if self.newest_only else {}
        events = zip(history.item_ids, history.actions, history.timestamps_ms, strict=True)
        for item_id, action, timestamp_ms in events:
            age_days = max(0.0, (now_ms - timestamp_ms) / _MS_PER_DAY)
            expired = self.expires_days is not None and age_days > self.expires_days
            counts = not self.actions or (
                action in self.actions and last.get(item_id, action) in self.actions
            )
            if counts and not expired:
                yield item_id, age_days
