"""A user's history in terms of a bundle's item rows.

Legend: H = events on known items, C = candidates, L = length of the encoded history.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from shards.row_lookup import RowLookup
from shards.search_context import SearchContext

MS_PER_DAY = 86_400_000


@dataclass(frozen=True, kw_only=True)
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

    def within(self, days: float | None) -> "HistoryRows":
        """Return the events of so many days before the moment; all of them where there is no bound."""
        if days is None:
            return self
        first = len(self.rows) - int(np.count_nonzero(self.ages_days <= days))
        return HistoryRows(
            rows=self.rows[first:], ages_days=self.ages_days[first:], actions=self.actions[first:]
        )

    def newest(self, count: int) -> "HistoryRows":
        """Return the newest `count` events."""
        return HistoryRows(
            rows=self.rows[-count:], ages_days=self.ages_days[-count:], actions=self.actions[-count:]
        )

    @cached_property
    def by_row(self) -> NDArray[np.int64]:
        """Return the places [H] of the events by row, and within one from old to young."""
        return np.argsort(self.rows, kind="stable")

    @cached_property
    def sorted_rows(self) -> NDArray[np.int64]:
        """Return the rows [H] of the events, sorted."""
        sorted_H: NDArray[np.int64] = self.rows[self.by_row]
        return sorted_H

    @cached_property
    def visited_rows(self) -> NDArray[np.int64]:
        """Return the rows of the events, sorted, a row once for each visit (a moment) with an event on it."""
        row_H, age_H = self.sorted_rows, self.ages_days[self.by_row]
        first_H = np.append(True, (np.diff(row_H) != 0) | (np.diff(age_H) != 0))[: len(row_H)]
        visited: NDArray[np.int64] = row_H[first_H]
        return visited

    def count_on(self, row_C: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many events [C] fall on each row."""
        return _occurrences(self.sorted_rows, row_C)

    def newest_age_on(self, row_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the age in days [C] of the newest event on each row; infinite where there is none."""
        if not len(self.rows):
            return np.full(len(row_C), np.inf)
        # The last event of a row is its newest.
        last_C = np.searchsorted(self.sorted_rows, row_C, side="right") - 1
        age_C = self.ages_days[self.by_row[last_C]]
        return np.where(self.sorted_rows[last_C] == row_C, age_C, np.inf)

    def visit_share_on(self, row_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the visits [C] with an event on each row over all visits and one; see `size`."""
        share_C: NDArray[np.float64] = _occurrences(self.visited_rows, row_C) / (1.0 + self.size("visits"))
        return share_C

    def size(self, of: str) -> float:
        """Return the number of "events" or "visits" (distinct moments), or the "idle_days" since the last."""
        if not len(self.rows):
            return 0.0
        match of:
            case "events":
                return float(len(self.rows))
            case "visits":
                return 1.0 + float(np.count_nonzero(np.diff(self.ages_days)))
            case "idle_days":
                return float(self.ages_days[-1])
        raise ValueError(f"{of!r} is no measure of a history")


def _occurrences(sorted_H: NDArray[np.int64], row_C: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(sorted_H, row_C, side="right") - np.searchsorted(sorted_H, row_C, side="left")


def history_rows(context: SearchContext, known: RowLookup) -> HistoryRows:
    """Return the history of `context` on known items; events from the future have age 0."""
    history, actions = context.user.history, context.user.history.actions
    rows = known.of(history.item_ids)
    time_H = np.fromiter(history.timestamps_ms, np.int64, len(history.timestamps_ms))
    ages_days = np.maximum(context.now_ms - time_H, 0) / MS_PER_DAY
    there = rows >= 0
    if not there.all():
        rows, ages_days, actions = rows[there], ages_days[there], tuple(compress(actions, there.tolist()))
    return HistoryRows(rows=rows, ages_days=ages_days, actions=actions)
