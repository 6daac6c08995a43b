"""Requests for training whose features are joined from memory when a batch needs them.

A log with the features of query, user and item written into each line repeats them as often as they were met.
Here every query, every user and every event is there once; a line holds numbers of them, and a batch is put
together by them (DPSR, arXiv 2006.02282, which saves 90 % so). What a batch holds comes from the one encoder,
as ever: values are encoded once, windows of a history when they are cut.

Legend: Q = requests, E = events, V = distinct values, B = batch.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import HistoryKind, ValueKind
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.history_rows import MS_PER_DAY, HistoryRows
from shards.search_context import SearchContext, UserState
from training.datasets.tables import timestamps_ms
from training.tensors import Tensors, as_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLog:
    """The events of all users end to end, each user's oldest first."""

    row_E: NDArray[np.int32]
    time_E: NDArray[np.int64]
    action_E: NDArray[np.int16]
    actions: tuple[str, ...]
    spans: Mapping[str, tuple[int, int]]
    """Where each user's events start and end."""

    def window(self, context: SearchContext) -> tuple[int, int]:
        """Return where the history that a search came with starts and ends."""
        start, end = self.spans.get(context.user.user_id, (0, 0))
        end = start + int(np.searchsorted(self.time_E[start:end], context.now_ms))
        return max(start, end - len(context.user.history.item_ids)), end

    def rows(self, start: int, end: int, now_ms: int) -> HistoryRows:
        """Return these events as a search at that moment sees them."""
        known = np.flatnonzero(self.row_E[start:end] >= 0) + start
        return HistoryRows(
            rows=self.row_E[known].astype(np.int64),
            ages_days=(now_ms - self.time_E[known]) / MS_PER_DAY,
            actions=tuple(self.actions[code] for code in self.action_E[known].tolist()),
        )


def history_log(events: pa.Table, items: ForwardIndex) -> HistoryLog:
    """Return the log of the events, which come in order of time."""
    users, actions = (
        events.column(name).combine_chunks().dictionary_encode() for name in ("user_id", "action")
    )
    user_E = users.indices.to_numpy()
    order = np.argsort(user_E, kind="stable")
    ends = np.cumsum(np.bincount(user_E, minlength=len(users.dictionary))).tolist()
    return HistoryLog(
        row_E=items.rows_of(events.column("item_id").to_pylist())[order].astype(np.int32),
        time_E=timestamps_ms(events)[order],
        action_E=actions.indices.to_numpy()[order].astype(np.int16),
        actions=tuple(actions.dictionary.to_pylist()),
        spans=dict(zip(users.dictionary.to_pylist(), zip([0, *ends], ends, strict=False), strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Features of values that many requests share: one row for each distinct one, and whose it is."""

    table: Tensors
    row_Q: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedRequests:
    """The features of Q requests; `rows` puts those of a batch together."""

    encoder: RequestEncoder
    values: tuple[Values, ...]
    log: HistoryLog | None
    """None where no feature reads a history."""
    window_Q2: NDArray[np.int64]
    now_Q: NDArray[np.int64]

    def rows(self, rows: Tensor) -> Tensors:
        """Return the request features of these requests, as the encoder gives them."""
        joined = {
            name: table[value.row_Q[rows]] for value in self.values for name, table in value.table.items()
        }
        if self.log is not None:
            asked = zip(self.window_Q2[rows].tolist(), self.now_Q[rows].tolist(), strict=True)
            histories = [self.log.rows(start, end, now_ms) for (start, end), now_ms in asked]
            joined |= as_tensors(self.encoder.encode_histories(histories))
        return joined

    @property
    def size_bytes(self) -> int:
        """Return what it keeps in memory, but for the names of users."""
        tensors = [tensor for value in self.values for tensor in (value.row_Q, *value.table.values())]
        arrays: list[NDArray[Any]] = [self.window_Q2, self.now_Q]
        if self.log is not None:
            arrays += [self.log.row_E, self.log.time_E, self.log.action_E]
        return sum(tensor.nbytes for tensor in tensors) + sum(array.nbytes for array in arrays)


def join_requests(
    encoder: RequestEncoder, spec: FeatureSpec, contexts: Sequence[SearchContext], log: HistoryLog
) -> JoinedRequests:
    """Return the requests in parts that they share; their histories are in the log."""
    features = [feature for feature in spec.on("request") if isinstance(feature, ValueKind)]
    roots = {feature.name: feature.source.partition(".")[0] for feature in features}
    values = [_values(encoder, names, contexts, _PARTS[root]) for root, names in _by_root(roots).items()]
    reads_history = any(isinstance(feature, HistoryKind) for feature in spec.features)
    return JoinedRequests(
        encoder=encoder,
        values=tuple(values),
        log=log if reads_history else None,
        window_Q2=np.array([log.window(context) for context in contexts], np.int64).reshape(-1, 2),
        now_Q=np.array([context.now_ms for context in contexts], np.int64),
    )


def _by_root(roots: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, root in roots.items():
        found.setdefault(root, []).append(name)
    return found


Part = Callable[[SearchContext], tuple[Hashable, SearchContext]]
"""What tells one value of a part from another, and a search with that part alone."""

_PARTS: Mapping[str, Part] = {
    "query": lambda c: (c.query, SearchContext(query=c.query, now_ms=0)),
    "user": lambda c: (c.user.user_id, _user_alone(c)),
    "user_id": lambda c: (c.user.user_id, _user_alone(c)),
    "context": lambda c: (tuple(sorted(c.features.items())), SearchContext(features=c.features, now_ms=0)),
    "now": lambda c: (c.now_ms // 3_600_000, SearchContext(now_ms=c.now_ms)),
}
"""By where a feature's source begins. Parts of a moment are no finer than an hour."""


def _user_alone(context: SearchContext) -> SearchContext:
    user = UserState(user_id=context.user.user_id, features=context.user.features)
    return SearchContext(user=user, now_ms=0)


def _values(
    encoder: RequestEncoder, names: Sequence[str], contexts: Sequence[SearchContext], part: Part
) -> Values:
    number_of: dict[Hashable, int] = {}
    distinct: list[SearchContext] = []
    row_Q = np.empty(len(contexts), np.int32)
    for q, context in enumerate(contexts):
        key, alone = part(context)
        if key not in number_of:
            number_of[key] = len(distinct)
            distinct.append(alone)
        row_Q[q] = number_of[key]
    encoded = as_tensors(encoder.encode_requests(distinct))
    return Values(table={name: encoded[name] for name in names}, row_Q=torch.from_numpy(row_Q))
