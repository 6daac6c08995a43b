"""The models that `make bench-ranking` compares, each as a function from the data and a seed to its scores.

Peers read the numbers of candidates (the cross features); ours read texts, histories and ids besides.

Legend: Q = requests, C = candidates, K = cross features, N = examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.bench.ranker_blocks import BLOCKS, with_block
from tests.bench.ranking_data import RankingData
from training.models.averaged import Averaged
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.ranking import RankingSet, RankingTraining, ndcg_at_10, predict, train_ranker
from training.recipe import RankerRecipe
from training.trainer import Seeded

Floats = NDArray[np.float64]
Scorer = Callable[[RankingSet], Floats]
"""Gives the log-odds [Q, C] of a set's candidates; those of an absent one mean nothing."""
Fit = Callable[[RankingData, int], Scorer]
"""Fits a model with a seed."""

_THREADS = 1
_TREES = {
    "num_leaves": 63,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": _THREADS,
    "deterministic": True,
    "verbose": -1,
}
_ROUNDS, _PATIENCE = 500, 30
_STOPPING = 1_000
"""Requests held out, evenly drawn, by which training of ours stops early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A model to compare: whether it is ours, and how it is fitted."""

    ours: bool
    fit: Fit


OWN = "the recipe's ranker"
PEERS = {"LightGBM LambdaMART": "lambdarank", "LightGBM, binary": "binary"}
"""LightGBM by what it learns."""


def compared(ranker: RankerRecipe[MultiTaskRankerConfig]) -> Mapping[str, Compared]:
    """Return all models by name: peers, the recipe's ranker, and a single one with each other block."""
    configs = {OWN: ranker.model}
    blocks = {name: replace(with_block(ranker.model, changes), members=1) for name, changes in BLOCKS.items()}
    configs |= {name: config for name, config in blocks.items() if config != ranker.model}
    return {
        "logistic regression": Compared(ours=False, fit=_logistic),
        **{name: Compared(ours=False, fit=_trees(objective)) for name, objective in PEERS.items()},
        **{
            name: Compared(ours=True, fit=_ranker(config, ranker.training))
            for name, config in configs.items()
        },
    }


def _ranker(config: MultiTaskRankerConfig, training: RankingTraining) -> Fit:
    def fit(data: RankingData, seed: int) -> Scorer:
        generator = Seeded(seed=seed, threads=_THREADS).apply()
        stopping = data.held_out[torch.arange(0, len(data.held_out), -(-len(data.held_out) // _STOPPING))]

        def trained() -> MultiTaskRanker:
            model = MultiTaskRanker(config, data.inputs)

            def evaluate() -> float:
                return ndcg_at_10(predict(model, stopping)[..., 0], stopping)

            train_ranker("ranker", model, training, data.train, data.tasks, generator, evaluate=evaluate)
            return model.eval()

        members = [trained() for _ in range(config.members)]
        model = Averaged(members) if len(members) > 1 else members[0]

        @torch.inference_mode()
        def score(examples: RankingSet) -> Floats:
            return predict(model, examples)[..., 0].numpy().astype(np.float64)

        return score

    return fit


def _logistic(data: RankingData, seed: int) -> Scorer:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, random_state=seed))
    model.fit(*_examples(data.train))
    return _as_scorer(model.decision_function)


def _trees(objective: str) -> Fit:
    def fit(data: RankingData, seed: int) -> Scorer:
        sets = [_lightgbm_set(part) for part in (data.train, data.held_out)]
        metric = {"metric": "ndcg", "eval_at": [10]} if objective == "lambdarank" else {}
        booster = lightgbm.train(
            {**_TREES, **metric, "objective": objective, "seed": seed},
            sets[0],
            num_boost_round=_ROUNDS,
            valid_sets=[sets[1]],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )

        def log_odds(cross_NK: NDArray[np.float32]) -> Floats:
            return np.asarray(booster.predict(cross_NK, raw_score=True, num_threads=_THREADS), np.float64)

        return _as_scorer(log_odds)

    return fit


def _lightgbm_set(part: RankingSet) -> lightgbm.Dataset:
    cross_NK, label_N = _examples(part)
    sizes = part.present_QC.sum(dim=1).numpy()
    return lightgbm.Dataset(cross_NK, label_N, group=sizes[sizes > 0])


def _examples(part: RankingSet) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the features [N, K] and labels [N] of the candidates that are there, request by request."""
    present_QC = part.present_QC
    return part.cross_QCK[present_QC].numpy(), (part.label_QCT[..., 0][present_QC] > 0).numpy().astype(
        np.int64
    )


def _as_scorer(log_odds: Callable[[NDArray[np.float32]], Floats]) -> Scorer:
    def score(examples: RankingSet) -> Floats:
        score_QC = np.zeros(examples.present_QC.shape)
        score_QC[examples.present_QC.numpy()] = log_odds(_examples(examples)[0])
        return score_QC

    return score
