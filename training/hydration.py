"""Hydrated vectors: numbers of an item go behind its vector, and what they weigh behind that of a query.

Jha et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833): p' = [p; f(p)]
and q' = [q; w], so that any index of inner products ranks by q·p + w·f(p). The weights are fitted after
training, by Bayesian optimisation for recall on later purchases. f(p) are numbers of the item table by their
quantile, as of the moment of the index.

Legend: Q = requests, N = items, D = width of a vector, F = numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
import torch
from optuna.samplers import TPESampler
from torch import Tensor

from shards.column_encoder import numbers
from shards.forward_index import ForwardIndex
from training.embedding import Embedding, examples_of
from training.models.ensemble import Ensemble
from training.models.hydrated import Hydrated, Hydration
from training.retrieval import encoded
from training.snapshot import Requests, Snapshot

_STRONGEST = 0.3
"""Weights are looked for between this and its negative: cosines of what is near a query differ by less."""


def hydrated(
    embedding: Embedding,
    hydration: Hydration,
    snapshot: Snapshot,
    *,
    fitted_on: Requests | None = None,
    early: Embedding | None = None,
    seed: int,
) -> Embedding:
    """Return the embedding with the numbers of the snapshot's items behind its vectors.

    The weights are those of an early embedding, or fitted on requests that training did not see.
    """
    assert not isinstance(embedding.model, Hydrated | Ensemble)
    items = ForwardIndex(snapshot.items)
    number_NF = quantiles(items.columns(hydration.columns), hydration.columns)
    if early is not None and isinstance(early.model, Hydrated):
        weight_F = early.model.weight_F
    else:
        assert fitted_on is not None, "an embedding without an early one has requests held out"
        with torch.inference_mode():
            examples = examples_of(embedding.encoder, items, fitted_on)
            vector_QD, vector_ND = (
                encoded(embedding.model, examples),
                embedding.model.encode_item(embedding.item),
            )
            weight_F = best_weights(hydration, vector_QD, examples.row_Q, vector_ND, number_NF, seed=seed)
    return replace(embedding, model=Hydrated(embedding.model, number_NF, weight_F).eval())


def quantiles(columns: Mapping[str, Sequence[object]], names: Sequence[str]) -> Tensor:
    """Return each number as the share of items with a smaller one [N, F]; 0 where there is none."""
    found = []
    for name in names:
        value_N = numbers(columns[name])
        known_N = np.isfinite(value_N)
        ordered = np.sort(value_N[known_N])
        share_N = np.searchsorted(ordered, np.where(known_N, value_N, -np.inf)) / max(len(ordered), 1)
        found.append(share_N.astype(np.float32))
    return torch.from_numpy(np.stack(found, axis=1))


def best_weights(
    hydration: Hydration,
    vector_QD: Tensor,
    row_Q: Tensor,
    vector_ND: Tensor,
    number_NF: Tensor,
    *,
    seed: int,
) -> Tensor:
    """Return the weights [F] by which most requests have their item among the first k; at worst zeros."""
    score_QN = vector_QD @ vector_ND.T

    def recall(trial: optuna.Trial) -> float:
        weights = [trial.suggest_float(name, -_STRONGEST, _STRONGEST) for name in hydration.columns]
        total_QN = score_QN + number_NF @ torch.tensor(weights)
        own_Q1 = total_QN.gather(1, row_Q.unsqueeze(1))
        return float(((total_QN > own_Q1).sum(dim=1) < hydration.k).double().mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=seed))
    study.enqueue_trial(dict.fromkeys(hydration.columns, 0.0))
    study.optimize(recall, n_trials=hydration.trials)
    return torch.tensor([study.best_params[name] for name in hydration.columns])
