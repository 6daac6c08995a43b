"""A user's history in terms of a bundle's item rows.

Legend: H = events on known items, C = candidates, L = length of the encoded history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress, repeat

import numpy as np
from numpy.typing import NDArray

from shards.search_context import SearchContext

MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRows:
    """Events on items that the bundle knows, oldest first: rows [H], ages in days [H], actions."""

    rows: NDArray[np.int64]
    ages_days: NDArray[np.float64]
    actions: tuple[str, ...]

    def of(self, actions: tuple[str, ...]) -> "HistoryRows":
        """Return the events with one of these actions; all of them where `actions` is empty."""
        if not actions:
            return self
        kept = [i for i, action in enumerate(self.actions) if action in actions]
        return HistoryRows(
            rows=self.rows[kept],
            ages_days=self.ages_days[kept],
            actions=tuple(self.actions[i] for i in kept),
        )

    def newest(self, count: int) -> "HistoryRows":
        """Return the newest `count` events."""
        return HistoryRows(
            rows=self.rows[-count:], ages_days=self.ages_days[-count:], actions=self.actions[-count:]
        )

    def count_on(self, row_C: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many events [C] fall on each row."""
        sorted_H = np.sort(self.rows)
        return np.searchsorted(sorted_H, row_C, side="right") - np.searchsorted(sorted_H, row_C, side="left")

    def newest_age_on(self, row_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the age in days [C] of the newest event on each row; infinite where there is none."""
        if not len(self.rows):
            return np.full(len(row_C), np.inf)
        # By row, and within one as they are, from old to young: the last event of a row is its newest.
        order = np.argsort(self.rows, kind="stable")
        sorted_H = self.rows[order]
        last_C = np.searchsorted(sorted_H, row_C, side="right") - 1
        return np.where(sorted_H[last_C] == row_C, self.ages_days[order[last_C]], np.inf)

    def visit_share_on(self, row_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the visits [C] with an event on each row over all visits and one; see `size`."""
        pairs = np.unique(np.stack([self.rows.astype(np.float64), self.ages_days]), axis=1)[0]
        first_C, last_C = (np.searchsorted(pairs, row_C, side=side) for side in ("left", "right"))
        share_C: NDArray[np.float64] = (last_C - first_C) / (1.0 + self.size("visits"))
        return share_C

    def size(self, of: str) -> float:
        """Return the number of "events" or "visits" (distinct moments), or the "idle_days" since the last."""
        if not len(self.rows):
            return 0.0
        match of:
            case "events":
                return float(len(self.rows))
            case "visits":
                return float(len(np.unique(self.ages_days)))
            case "idle_days":
                return float(self.ages_days.min())
        raise ValueError(f"{of!r} is no measure of a history")


def history_rows(context: SearchContext, item_rows: Mapping[str, int]) -> HistoryRows:
    """Return the history of `context` on known items; events from the future have age 0."""
    history, actions = context.user.history, context.user.history.actions
    rows = np.fromiter(map(item_rows.get, history.item_ids, repeat(-1)), np.int64, len(history.item_ids))
    ages_days = np.maximum(context.now_ms - np.array(history.timestamps_ms, np.float64), 0.0) / MS_PER_DAY
    known = rows >= 0
    if not known.all():
        rows, ages_days, actions = rows[known], ages_days[known], tuple(compress(actions, known.tolist()))
    return HistoryRows(rows=rows, ages_days=ages_days, actions=actions)
