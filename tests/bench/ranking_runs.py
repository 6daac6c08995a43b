"""One model of `make bench-ranking` fitted and judged, and all of them by several processes.

Legend: Q = requests, C = candidates, N = candidates that are there.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.bench.ranking_data import RankingData
from tests.bench.ranking_models import Compared, Scorer, compared
from training import task_serving
from training.evaluation import metrics
from training.evaluation.task_figures import ProbabilityFigures, probability_figures
from training.losses import MASKED
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.models.task_links import TaskLinks, probabilities
from training.ranking import RankingSet
from training.recipe import RankerRecipe
from training.tasks import Task

_CALLS, _CANDIDATES = 100, 200
_FIRST = Task(name="first", target_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The figures of one fitted model, and the NDCG@10 of each request of the test [Q]."""

    figures: dict[str, float]
    ndcg: NDArray[np.float64]


def judged(model: Compared, data: RankingData, seed: int) -> Judged:
    """Return what comes of a model that is fitted with a seed."""
    started = time.perf_counter()
    score = model.fit(data, seed)
    fit_s = time.perf_counter() - started
    raw_QC, held_out_QC = (torch.from_numpy(score(part)) for part in (data.test, data.held_out))
    found = figures_of(calibrated(held_out_QC, data.held_out)(raw_QC), data.test)
    ndcg_Q = ndcg_at_10(raw_QC, data.test)
    return Judged(
        figures={
            "ndcg_10": float(ndcg_Q.mean()),
            "held_out_ndcg_10": float(ndcg_at_10(held_out_QC, data.held_out).mean()),
            "auc": found.auc,
            "gauc": found.gauc,
            "log_loss": found.log_loss,
            "ece": found.ece,
            "later_ratio": found.predicted / found.observed,
            "fit_s": fit_s,
            **latency_of(score, data.test),
        },
        ndcg=ndcg_Q,
    )


def all_judged(
    ranker: RankerRecipe[MultiTaskRankerConfig],
    data: RankingData,
    jobs: Sequence[tuple[str, int]],
    processes: int = 1,
) -> Iterator[Judged]:
    """Yield what comes of each model and seed, in order, by so many processes at once."""
    if processes == 1:
        models = compared(ranker)
        yield from (judged(models[name], data, seed) for name, seed in jobs)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawned, initializer=_begin, initargs=(ranker, data)) as pool:
        yield from pool.map(_judged_here, *zip(*jobs, strict=True))


_here: list[tuple[RankerRecipe[MultiTaskRankerConfig], RankingData]] = []
"""What a process of `all_judged` works on."""


def _begin(ranker: RankerRecipe[MultiTaskRankerConfig], data: RankingData) -> None:
    torch.set_num_threads(1)
    _here.append((ranker, data))


def _judged_here(name: str, seed: int) -> Judged:
    ((ranker, data),) = _here
    return judged(compared(ranker)[name], data, seed)


def figures_of(probability_QC: Tensor, examples: RankingSet) -> ProbabilityFigures:
    """Return the figures of the probabilities of the first task."""
    present_QC = examples.present_QC
    label_N = (examples.label_QCT[..., 0][present_QC] > 0).numpy().astype(np.float64)
    return probability_figures(
        label_N, probability_QC[present_QC].double().numpy(), present_QC.nonzero()[:, 0].numpy()
    )


def ndcg_at_10(score_QC: Tensor, examples: RankingSet) -> NDArray[np.float64]:
    """Return the NDCG@10 of each request [Q], all taken candidates relevant; 0 where none was taken."""
    order_QC = score_QC.masked_fill(~examples.present_QC, MASKED).sort(dim=1, descending=True, stable=True)
    taken_QC = (examples.label_QCT[..., 0] > 0) & examples.present_QC
    hit_QK = taken_QC.gather(1, order_QC.indices[:, :10]).numpy()
    return metrics.ndcg_at(hit_QK, taken_QC.sum(dim=1).numpy(), 10)


def calibrated(
    raw_QC: Tensor, examples: RankingSet, links: TaskLinks | None = None
) -> Callable[[Tensor], Tensor]:
    """Return what makes probabilities of log-odds [Q, C], fitted to those of some requests as recipes do it.

    It begins with `links`, of the first task alone.
    """
    fitted = task_serving.calibrated(links or probabilities(1), (_FIRST,), raw_QC.unsqueeze(-1), examples)
    return lambda log_odds: fitted(log_odds.unsqueeze(-1)).squeeze(-1)


def latency_of(score: Scorer, examples: RankingSet) -> dict[str, float]:
    """Return how long the scores of one request's candidates take, features made, on one thread."""
    full = min(_CANDIDATES, examples.present_QC.shape[1])
    full_Q = (examples.present_QC.sum(dim=1) == full).nonzero()[:, 0]
    one = [examples[full_Q[n % len(full_Q)][None]] for n in range(_CALLS)] if len(full_Q) else []
    seconds = []
    for request in one:
        started = time.perf_counter()
        score(request)
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.quantile(np.array(seconds or [np.nan]) * 1000, [0.5, 0.99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
