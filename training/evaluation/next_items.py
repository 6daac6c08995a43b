"""Next items without a query: what a user takes next of all that they have not taken yet.

The protocol: at the moment at which a split starts every user with a history asks once, without a query;
relevant are the items that they take in the split and had never taken before it. What they took before is
left out of the answer, which a release does by `exclude_actions`.

Legend: Q = users, K = places of a list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.search_context import SearchContext, UserState
from training.datasets.contexts import Histories, raw_features
from training.datasets.splits import SPLITS, split_of
from training.datasets.tables import Dataset
from training.evaluation import metrics
from training.evaluation.offline import Cascade, GateRule, retrieve, staged

DEPTH = 20
"""Places of a list that are judged."""
_CONFIDENCE = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class NextItems:
    """One user who asks, and the items that they then take for the first time."""

    context: SearchContext
    relevant: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFigures:
    """Means over users; `ndcg_20_error` is half the 95 % confidence interval."""

    users: int
    recall_20: float
    ndcg_20: float
    hit_rate_20: float
    ndcg_20_error: float


def next_items(dataset: Dataset, split: str, *, history_limit: int) -> list[NextItems]:
    """Return every user who had taken something before the split and takes something new in it, by id.

    Raises ValueError for a split that there is not.
    """
    start_ms, end_ms = _span_ms(dataset, split)
    histories = Histories(dataset.events)
    features = raw_features(dataset.users, "user_id")
    found = []
    for user_id in sorted(dataset.users.column("user_id").to_pylist()):
        everything = histories.of(user_id)
        first, last = np.searchsorted(everything.timestamps_ms, [start_ms, end_ms]).tolist()
        relevant = frozenset(everything.item_ids[first:last]) - frozenset(everything.item_ids[:first])
        if first and relevant:
            history = everything.before(start_ms, limit=history_limit)
            user = UserState(user_id=user_id, features=features.get(user_id, {}), history=history)
            context = SearchContext(user=user, now_ms=start_ms)
            found.append(NextItems(context=context, relevant=relevant))
    return found


def _span_ms(dataset: Dataset, split: str) -> tuple[int, int]:
    if split not in SPLITS[1:]:
        raise ValueError(f"split must be one of {', '.join(SPLITS[1:])}, not {split!r}")
    starts = split_of(dataset.queries)
    if split == "valid":
        return starts.valid_from_ms, starts.test_from_ms
    return starts.test_from_ms, np.iinfo(np.int64).max


def recommend(
    cascade: Cascade,
    asked: Sequence[NextItems],
    *,
    gate: GateRule = lambda *_: True,
    on_user: Callable[[], None] = lambda: None,
) -> dict[str, list[tuple[str, ...]]]:
    """Return the first items for each user: of every channel alone, merged, and as far as the stages go.

    The last ranking is the page that the release answers.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for user in asked:
        retrieved = retrieve(cascade, user.context)
        lists = {name: candidates.item_ids for name, candidates in retrieved.items()}
        gate_open = gate(user.context, retrieved)
        lists |= staged(cascade, user.context, retrieved, gate_open=gate_open, depth=DEPTH)
        for name, item_ids in lists.items():
            found.setdefault(name, []).append(item_ids[:DEPTH])
        on_user()
    return found


def figures_of(asked: Sequence[NextItems], lists: Sequence[tuple[str, ...]]) -> NextFigures:
    """Return the figures of one list for each user."""
    hit_QK = np.zeros((len(asked), DEPTH), np.bool_)
    for row, (user, item_ids) in enumerate(zip(asked, lists, strict=True)):
        hit_QK[row, : len(item_ids)] = [item_id in user.relevant for item_id in item_ids[:DEPTH]]
    relevant_Q: NDArray[np.int64] = np.array([len(user.relevant) for user in asked], np.int64)
    ndcg_Q = metrics.ndcg_at(hit_QK, relevant_Q, DEPTH)
    return NextFigures(
        users=len(asked),
        recall_20=float(metrics.recall_at(hit_QK, relevant_Q, DEPTH).mean()),
        ndcg_20=float(ndcg_Q.mean()),
        hit_rate_20=float(metrics.hit_rate_at(hit_QK, DEPTH).mean()),
        ndcg_20_error=float(_CONFIDENCE * ndcg_Q.std() / np.sqrt(max(len(asked), 1))),
    )


def summary(
    asked: Sequence[NextItems], found: Mapping[str, Sequence[tuple[str, ...]]]
) -> dict[str, NextFigures]:
    """Return the figures of every ranking."""
    return {name: figures_of(asked, lists) for name, lists in found.items()}
