"""How lists become one: channels into one list, task probabilities into one score, stages in a row.

Pure, and free of torch and faiss, because the router merges. Legend: C = candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.candidates import EMPTY, SCORE, Candidates, Floats
from shards.release import Stage

Mask = NDArray[np.bool_]

RRF_K = 60
"""Dampens the lead of first ranks in reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

PREFIXES = {Stage.PRE_RANKING: "pre_rank", Stage.RANKING: "rank"}
"""What a stage's columns are called when they flow on: "pre_rank.score", "rank.purchase"."""

MERGE_SCORE = "merge.score"
"""The column that `merge` sorts by."""

_SMALLEST_PROBABILITY = 1e-12
BELOW_THRESHOLD = 20.0
"""What an item below a task's threshold loses of its log score: it comes after those that are not."""
_LARGEST_LOG_SCORE = 80.0
"""exp(±80) is finite and above zero in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelResult:
    """What one channel retrieved, best first; its first `quota` items always survive the merge."""

    name: str
    weight: float = 1.0
    quota: int = 0
    candidates: Candidates


def merge(results: Sequence[ChannelResult], *, limit: int) -> Candidates:
    """Return the best `limit` items of all channels, each item once, best first, ties by item id.

    Items are ordered by weighted reciprocal rank fusion: the sum over channels of weight / (60 + rank).
    Every channel's quota survives; only where the quotas alone exceed `limit` is the answer longer than it.
    Columns: "merge.score" and for every channel "<channel>.score" and "<channel>.rank" (1 is best), NaN
    where the channel did not bring the item. An item that a channel repeats keeps its best rank there.
    """
    item_ids = sorted(set().union(*(result.candidates.item_ids for result in results)))
    if not item_ids:
        return EMPTY
    rows = dict(zip(item_ids, range(len(item_ids)), strict=True))
    fused = np.zeros(len(item_ids), np.float64)
    protected = np.zeros(len(item_ids), np.bool_)
    # A line for each column, so that all are put into their last order at once.
    columns = np.full((2 * len(results) + 1, len(item_ids)), np.nan, np.float32)
    for result, score, rank in zip(results, columns[0::2], columns[1::2], strict=False):
        at = np.fromiter(map(rows.__getitem__, result.candidates.item_ids), np.intp, len(result.candidates))
        # Written backwards, so that the first of two equal items is the one that stays.
        rank[at[::-1]] = np.arange(len(at), 0, -1, dtype=np.float32)
        if SCORE in result.candidates.columns:
            score[at[::-1]] = result.candidates.columns[SCORE][::-1]
        fused[at] += result.weight / (RRF_K + rank[at])
        protected[at[: result.quota]] = True
    columns[-1] = fused
    order = np.argsort(-columns[-1], kind="stable")
    order = order[_survivors(protected[order], limit)]
    names = [f"{result.name}.{column}" for result in results for column in ("score", "rank")]
    return Candidates(
        item_ids=tuple(map(item_ids.__getitem__, order.tolist())),
        columns=dict(zip((*names, MERGE_SCORE), columns[:, order], strict=True)),
    )


def _survivors(protected: Mask, limit: int) -> Mask:
    """Return which of the items, best first, stay: all protected ones, and the best others up to `limit`."""
    free_places = max(0, limit - int(protected.sum()))
    survivors: Mask = protected | (np.cumsum(~protected) <= free_places)
    return survivors


def fuse(
    task_columns: Mapping[str, Floats],
    exponents: Mapping[str, float],
    thresholds: Mapping[str, float] | None = None,
) -> Floats:
    """Return the product over tasks of probability ** exponent [C]; other tasks do not count.

    An item of which a task's value is below its threshold scores e^-20 of that, once for each such task.

    Always finite for finite input: probabilities count as at least 1e-12 and the product stays within
    exp(±80); NaN stays NaN. Raises ValueError for an exponent or a threshold of a task that has no column.
    """
    thresholds = thresholds or {}
    unknown = sorted((exponents.keys() | thresholds.keys()) - task_columns.keys())
    if unknown:
        raise ValueError(f"no such task: {', '.join(unknown)}; there are {', '.join(sorted(task_columns))}")
    size = len(next(iter(task_columns.values()))) if task_columns else 0
    log_score = np.zeros(size, np.float64)
    for task, exponent in exponents.items():
        log_score += exponent * np.log(
            np.maximum(task_columns[task].astype(np.float64), _SMALLEST_PROBABILITY)
        )
    for task, threshold in thresholds.items():
        log_score -= BELOW_THRESHOLD * (task_columns[task] < threshold)
    return np.exp(np.clip(log_score, -_LARGEST_LOG_SCORE, _LARGEST_LOG_SCORE)).astype(np.float32)


def with_columns(candidates: Candidates, stage: str, scored: Candidates) -> Candidates:
    """Join a stage's answer onto the candidates that it was asked about.

    Returns the items of `scored` in its order and with its attributes, with the columns they had in
    `candidates` and the stage's own as "<stage>.<column>". Raises ValueError for an item never asked about.
    """
    rows = dict(zip(candidates.item_ids, range(len(candidates)), strict=True))
    try:
        order = np.fromiter(map(rows.__getitem__, scored.item_ids), np.intp, len(scored))
    except KeyError as error:
        raise ValueError(f"{stage} returned the item {error}, which it was not asked about") from None
    columns = {name: column[order] for name, column in candidates.columns.items()}
    columns |= {f"{stage}.{name}": column for name, column in scored.columns.items()}
    return Candidates(item_ids=scored.item_ids, columns=columns, attributes=scored.attributes)


def attributes_of(
    item_ids: Sequence[str], sources: Sequence[Candidates], names: Sequence[str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the texts of each item by name, all or those named, from the first source that knows it.

    A source holds texts for its first items only.
    """
    found: dict[str, dict[str, str]] = {item_id: {} for item_id in item_ids}
    for source in sources:
        for name, texts in source.attributes.items():
            if names is not None and name not in names:
                continue
            for item_id, text in zip(source.item_ids, texts, strict=False):
                if item_id in found:
                    found[item_id].setdefault(name, text)
    return found
