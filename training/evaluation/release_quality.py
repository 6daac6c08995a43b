"""Two releases over the same held-out queries, and whether the newer one is worse than chance explains.

Legend: N = candidates of all queries, G = groups of queries.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from shards.candidates import SCORE, Candidates
from shards.merging import MERGE_SCORE, PREFIXES
from shards.release import Stage
from shards.release_quality import Measure, ReleaseQuality
from training.evaluation import metrics
from training.evaluation.judgements import Judged
from training.evaluation.offline import Cascade, GateRule, retrieve, stages
from training.evaluation.report import figures, rank_of

Floats = NDArray[np.float64]

_TOP = 10
_GROUPS = 20
_SMALLER_IS_BETTER, _RELATIVE = ("ece",), ("coverage",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a release made of one query: its page, and scores of the candidates that its last stage scored.

    `probability` is that of the ranker's first task, which is about the relevant item; without a ranker None.
    """

    rank: int
    top: tuple[str, ...]
    relevant: NDArray[np.bool_]
    score: Floats
    probability: Floats | None


def answers(
    cascade: Cascade, judged: Sequence[Judged], gate: GateRule, on_query: Callable[[], None] = lambda: None
) -> list[Answered]:
    """Return what the release makes of each query."""
    found = []
    for query in judged:
        retrieved = retrieve(cascade, query.context)
        steps = stages(cascade, query.context, retrieved, gate_open=gate(query.context, retrieved))
        found.append(_answered(list(steps.values())[-1], query.relevant))
        on_query()
    return found


def _answered(page: Candidates, relevant: str) -> Answered:
    ranked, pre_ranked = (f"{PREFIXES[stage]}." for stage in (Stage.RANKING, Stage.PRE_RANKING))
    names = (f"{ranked}{SCORE}", f"{pre_ranked}{SCORE}", MERGE_SCORE)
    score = next((page.columns[name] for name in names if name in page.columns), np.empty(0, np.float32))
    tasks = [name for name in page.columns if name.startswith(ranked) and name != names[0]]
    return Answered(
        rank=rank_of(page.item_ids, relevant),
        top=page.item_ids[:_TOP],
        relevant=np.array([item_id == relevant for item_id in page.item_ids], np.bool_),
        score=score.astype(np.float64),
        probability=page.columns[tasks[0]].astype(np.float64) if tasks else None,
    )


def compare(
    live: Sequence[Answered],
    candidate: Sequence[Answered],
    *,
    live_version: str,
    tolerated: Mapping[str, float],
) -> ReleaseQuality:
    """Return how the candidate did; a figure that one of the two does not have is left out.

    Intervals are of the difference, by a jackknife over groups of queries (Efron and Stein, 1981).
    """
    if len(live) != len(candidate):
        raise ValueError("only answers to the same queries can be compared")
    group_Q = np.arange(len(live)) % _GROUPS
    parts = [np.flatnonzero(group_Q != g).tolist() for g in range(min(_GROUPS, len(live)))]
    ours, theirs = _measured(live), _measured(candidate)
    without = [(_measured([live[q] for q in p]), _measured([candidate[q] for q in p])) for p in parts]
    measures = []
    for name, tolerance in tolerated.items():
        gain_G = np.array([_gain(name, one[name], other[name]) for one, other in without])
        gain = _gain(name, ours[name], theirs[name])
        spread = float(np.sum((gain_G - gain_G.mean()) ** 2)) if len(gain_G) else 0.0
        error = 1.96 * float(np.sqrt(max(len(gain_G) - 1, 0) / max(len(gain_G), 1) * spread))
        if isfinite(gain) and isfinite(error):
            measures.append(
                Measure(
                    name=name,
                    live=ours[name],
                    candidate=theirs[name],
                    gain=gain,
                    error=error,
                    tolerated=tolerance,
                )
            )
    return ReleaseQuality(live_version=live_version, queries=len(live), measures=tuple(measures))


def _gain(name: str, live: float, candidate: float) -> float:
    gain = live - candidate if name in _SMALLER_IS_BETTER else candidate - live
    return gain / max(live, 1.0) if name in _RELATIVE else gain


def _measured(answered: Sequence[Answered]) -> dict[str, float]:
    """Return every figure; NaN for what there is not."""
    relevant_N = np.concatenate([each.relevant for each in answered] or [np.empty(0, np.bool_)])
    score_N = np.concatenate([each.score for each in answered] or [np.empty(0)])
    group_N = np.repeat(np.arange(len(answered)), [len(each.relevant) for each in answered])
    probabilities = [each.probability for each in answered if each.probability is not None]
    calibrated = sum(map(len, probabilities)) == len(relevant_N) > 0
    return {
        "ndcg_10": figures(np.array([each.rank for each in answered], np.int64)).ndcg_10,
        "auc": metrics.auc(relevant_N, score_N),
        "gauc": metrics.gauc(relevant_N, score_N, group_N),
        "ece": metrics.expected_calibration_error(relevant_N, np.concatenate(probabilities))
        if calibrated
        else float("nan"),
        "coverage": float(metrics.p90_items([each.top for each in answered], _TOP)),
    }
