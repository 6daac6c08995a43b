"""Labels from events: whether a user came to like an item that they met, once that is known.

A label opens when a user first meets an item. It is positive as soon as a positive action follows, and
negative when the window closes without one; an action that tells of dislike has it inferred earlier. Until
then there is no label: counting the open ones as negative would call all that is new unloved.

Legend: E = events, L = labels.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.datasets.statistics import DAY_MS
from training.datasets.tables import timestamps_ms

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Which actions make a label, and how long it takes to close."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    """Actions by which a negative label is inferred before its window closes; none: all of them wait."""
    window_days: float = 14.0
    weight: str = ""
    """The number of a positive event that its example's weight is proportional to, say seconds watched: 1 on
    average. Empty: all weigh 1. Negatives weigh 1."""

    def __post_init__(self) -> None:
        if not self.positive or set(self.positive) & set(self.negative):
            raise ValueError("a label needs positive actions, which are not negative, too")
        if not self.window_days > 0:
            raise ValueError(f"window_days must be above 0, not {self.window_days:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labels in the order in which they became known."""

    user_ids: pa.Array
    item_ids: pa.Array
    opened_ms_L: NDArray[np.int64]
    known_ms_L: NDArray[np.int64]
    label_L: NDArray[np.bool_]
    weight_L: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label_L)

    def __getitem__(self, kept: slice) -> "Labels":
        return Labels(
            user_ids=self.user_ids[kept],
            item_ids=self.item_ids[kept],
            opened_ms_L=self.opened_ms_L[kept],
            known_ms_L=self.known_ms_L[kept],
            label_L=self.label_L[kept],
            weight_L=self.weight_L[kept],
        )

    def since(self, start_ms: int) -> "Labels":
        """Return those that became known from a moment on."""
        return self[int(np.searchsorted(self.known_ms_L, start_ms)) :]


def labels_at(events: pa.Table, rule: LabelRule, now_ms: int) -> Labels:
    """Return every label that is closed or inferred from the events strictly before `now_ms`.

    Raises ValueError where events have no column of the rule's weight.
    """
    times_ms = timestamps_ms(events)
    order = np.argsort(times_ms, kind="stable")[: int((times_ms < now_ms).sum())]
    events, time_E = events.take(pa.array(order)), times_ms[order]
    pair_E, first_L = _pairs(events)
    opened_L = time_E[first_L]
    window_ms = round(rule.window_days * DAY_MS)
    within_E = time_E <= opened_L[pair_E] + window_ms
    positive_L, by_L = _first(pair_E, time_E, within_E & _is_one_of(events, rule.positive), len(first_L))
    negative_L, _ = _first(pair_E, time_E, within_E & _is_one_of(events, rule.negative), len(first_L))
    label_L = positive_L < _NEVER
    known_L = np.where(label_L, positive_L, np.minimum(negative_L, opened_L + window_ms))
    kept = np.flatnonzero(known_L < now_ms)
    kept = kept[np.argsort(known_L[kept], kind="stable")]
    met = events.take(pa.array(first_L[kept]))
    return Labels(
        user_ids=met.column("user_id").combine_chunks(),
        item_ids=met.column("item_id").combine_chunks(),
        opened_ms_L=opened_L[kept],
        known_ms_L=known_L[kept],
        label_L=label_L[kept],
        weight_L=_weights(events, rule.weight, by_L[kept]),
    )


def _pairs(events: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which pair of user and item each event is of [E], and each pair's first event [L]."""
    codes = [
        events.column(name).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        for name in ("user_id", "item_id")
    ]
    user_E, item_E = (code.astype(np.int64) for code in codes)
    key_E = user_E * (int(item_E.max(initial=0)) + 1) + item_E
    _, first_L, pair_E = np.unique(key_E, return_index=True, return_inverse=True)
    return pair_E, first_L


def _is_one_of(events: pa.Table, actions: tuple[str, ...]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(events.column("action"), pa.array(actions, pa.string())).to_numpy()
    return found


def _first(
    pair_E: NDArray[np.int64], time_E: NDArray[np.int64], counts_E: NDArray[np.bool_], pairs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when each pair's first event that counts was and which it is [L]; never and -1 for none."""
    time_L, event_L = np.full(pairs, _NEVER), np.full(pairs, -1)
    rows = np.flatnonzero(counts_E)[::-1]
    time_L[pair_E[rows]], event_L[pair_E[rows]] = time_E[rows], rows
    return time_L, event_L


def _weights(events: pa.Table, column: str, event_L: NDArray[np.int64]) -> NDArray[np.float64]:
    weight_L = np.ones(len(event_L))
    if not column:
        return weight_L
    if column not in events.column_names:
        raise ValueError(f"events have no column {column!r}, by which examples shall weigh")
    value_E = events.column(column).cast(pa.float64()).to_numpy()
    known = np.flatnonzero(event_L >= 0)
    value = np.nan_to_num(value_E[event_L[known]], nan=0.0)
    if len(known) and value.sum() > 0:
        weight_L[known] = value / value.mean()
    return weight_L
