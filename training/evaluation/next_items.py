"""Next items without a query: what a user takes next of all that they have not taken yet.

The protocol: at the moment at which a split starts every user with a history asks once, without a query;
relevant are the items that they take in the split and had never taken before it. What they took before is
left out of the answer, which a release does by `exclude_actions`; `keeping` and `leaving_out` are a release
that does neither or both, where a protocol asks for both figures. Leave-one-out is the case of one relevant
item for each user.

Legend: Q = users, K = places of a list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.release import Release
from shards.search_context import SearchContext, UserState
from training.datasets.contexts import Histories, raw_features
from training.datasets.splits import SPLITS, split_of
from training.datasets.tables import Dataset
from training.evaluation import metrics
from training.evaluation.offline import Cascade, GateRule, retrieve, staged
from training.evaluation.report import sample_rows

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
    """Means over users; each `_error` is half the 95 % confidence interval."""

    users: int
    recall_5: float
    ndcg_5: float
    recall_10: float
    ndcg_10: float
    ndcg_10_error: float
    recall_20: float
    ndcg_20: float
    ndcg_20_error: float
    hit_rate_20: float
    p90_items_10: int
    """How few items make up 90 % of the first ten places of all lists."""


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


def sampled(asked: Sequence[NextItems], limit: int) -> list[NextItems]:
    """Return all users, or with `limit` above 0 a fixed sample of them, in their order."""
    names = tuple(user.context.user.user_id for user in asked)
    return [asked[row] for row in sample_rows(names, limit).tolist()]


def keeping(release: Release) -> Release:
    """Return the release with everybody's history left in the ranking."""
    return replace(release, exclude_actions=())


def leaving_out(release: Release, dataset: Dataset) -> Release:
    """Return the release without what users have met, whatever they did with it."""
    actions = tuple(sorted(pc.unique(dataset.events.column("action")).to_pylist()))
    return replace(release, exclude_actions=actions)


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
    recall = {k: float(metrics.recall_at(hit_QK, relevant_Q, k).mean()) for k in (5, 10, DEPTH)}
    ndcg_Q = {k: metrics.ndcg_at(hit_QK, relevant_Q, k) for k in (5, 10, DEPTH)}
    error = {k: float(_CONFIDENCE * found_Q.std() / np.sqrt(len(found_Q))) for k, found_Q in ndcg_Q.items()}
    return NextFigures(
        users=len(asked),
        recall_5=recall[5],
        ndcg_5=float(ndcg_Q[5].mean()),
        recall_10=recall[10],
        ndcg_10=float(ndcg_Q[10].mean()),
        ndcg_10_error=error[10],
        recall_20=recall[DEPTH],
        ndcg_20=float(ndcg_Q[DEPTH].mean()),
        ndcg_20_error=error[DEPTH],
        hit_rate_20=float(metrics.hit_rate_at(hit_QK, DEPTH).mean()),
        p90_items_10=metrics.p90_items(lists, 10),
    )


def summary(
    asked: Sequence[NextItems], found: Mapping[str, Sequence[tuple[str, ...]]]
) -> dict[str, NextFigures]:
    """Return the figures of every ranking."""
    return {name: figures_of(asked, lists) for name, lists in found.items()}
