"""The gate's model, trained on evaluation logs: what channels found for each search, and what that gained.

`training.gate_labels` has the two ways to say what was gained.

Legend: Q = searches of the log, F = features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from shards.candidates import Candidates
from shards.gate_features import after_features, facts_of
from shards.gate_knowledge import Floats, GateKnowledge
from shards.gate_model import GateScorer
from shards.search_context import SearchContext
from training.checkpoints import Checkpoint, Checkpoints
from training.evaluation import metrics
from training.models.gate_scorer import GateNet, exported
from training.trainer import FitConfig, Observer, Seeded, fit, ignore, shuffled_batches

_QUANTILES = 201
_LOOKED_AT = 100
"""Lexical candidates that a log keeps of each search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTraining:
    """What the gate's model is told of a search, what it predicts and how it is trained."""

    label: Literal["recall", "page"] = "recall"
    """"recall": only gated channels find the item that was taken; "page": that, or the page that the rankers
    make is better with them, which takes a minute for each few thousand searches."""
    searches: int = 0
    """How many of the newest searches label "page" asks; 0: all."""
    depths: tuple[int, ...] = (10, 20, 50, 100)
    """Among how many items they find it."""
    channel: str = "lexical"
    """The channel whose scores decide after lexical retrieval."""
    half_life_days: float = 60.0
    """How fast what is known of queries fades."""
    max_queries: int = 500_000
    hidden: int = 32
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=40, batch_size=256, learning_rate=3e-3, weight_decay=1e-2, patience=5
        )
    )

    def __post_init__(self) -> None:
        if self.searches < 0:
            raise ValueError(f"searches must not be negative, but is {self.searches}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLog:
    """Searches in order of time: what the lexical channel found for each, and what embeddings gained."""

    contexts: Sequence[SearchContext]
    lexical: Sequence[Candidates]
    gain_Q: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.contexts)

    def __getitem__(self, kept: slice) -> "GateLog":
        return GateLog(contexts=self.contexts[kept], lexical=self.lexical[kept], gain_Q=self.gain_Q[kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedGate:
    """Both scorers, and figures on the searches that they did not learn from."""

    before: GateScorer
    after: GateScorer
    figures: Mapping[str, float]


def kept_lexical(candidates: Candidates) -> Candidates:
    """Return what of the lexical candidates a log keeps."""
    return candidates.first(_LOOKED_AT)


def train_gate(
    config: GateTraining,
    knowledge: GateKnowledge,
    train: GateLog,
    held_out: GateLog,
    *,
    seeded: Seeded,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> TrainedGate:
    """Train both scorers on one part of a log; the later part stops them and spreads their scores."""
    generator = seeded.apply()
    scorers, figures = {}, {}
    features = [_features(knowledge, part) for part in (train, held_out)]
    for name in ("before", "after"):
        train_QF, held_out_QF = (by_name[name] for by_name in features)
        scorer, probability_Q = _trained(
            name,
            config,
            (train_QF, train.gain_Q),
            (held_out_QF, held_out.gain_Q),
            generator,
            observe,
            (checkpoints or Checkpoints()).next(f"gate {name}", generator),
        )
        scorers[name] = scorer
        figures[f"auc_{name}"] = metrics.auc(held_out.gain_Q > 0, probability_Q)
        figures[f"predicted_{name}"] = float(probability_Q.mean())
    figures["gain"] = float(held_out.gain_Q.mean())
    return TrainedGate(before=scorers["before"], after=scorers["after"], figures=figures)


def _features(knowledge: GateKnowledge, log: GateLog) -> dict[str, Floats]:
    facts = [facts_of(knowledge, context) for context in log.contexts]
    after = [after_features(one, lexical) for one, lexical in zip(facts, log.lexical, strict=True)]
    return {"before": np.stack([one.features for one in facts]), "after": np.stack(after)}


Examples = tuple[Floats, NDArray[np.float64]]
"""Features [Q, F] and labels [Q]."""


def _trained(
    name: str,
    config: GateTraining,
    train: Examples,
    held_out: Examples,
    generator: torch.Generator,
    observe: Observer,
    checkpoint: Checkpoint,
) -> tuple[GateScorer, NDArray[np.float64]]:
    """Return a scorer and its probabilities of what was held out [Q]."""
    net = GateNet(train[0], config.hidden)
    feature_QF, label_Q = torch.from_numpy(train[0]), torch.from_numpy(train[1].astype(np.float32))
    held_out_QF = torch.from_numpy(held_out[0])

    def held_out_probability() -> NDArray[np.float64]:
        with torch.inference_mode():
            return torch.sigmoid(net(held_out_QF)).numpy().astype(np.float64)

    fit(
        f"gate {name}",
        net,
        config.fit,
        batches=lambda: shuffled_batches(len(label_Q), config.fit.batch_size, generator),
        loss=lambda batch: functional.binary_cross_entropy_with_logits(
            net(feature_QF[batch]), label_Q[batch]
        ),
        evaluate=lambda: -_log_loss(held_out[1], held_out_probability()),
        observe=observe,
        checkpoint=checkpoint,
    )
    quantiles = np.quantile(held_out_probability(), np.linspace(0.0, 1.0, _QUANTILES)).astype(np.float32)
    return exported(net, quantiles), held_out_probability()


def _log_loss(gain_Q: NDArray[np.float64], probability_Q: NDArray[np.float64]) -> float:
    """Return the mean cross entropy of gains, which may lie between 0 and 1, in nats."""
    clipped = np.clip(probability_Q, 1e-12, 1 - 1e-12)
    return float(-(gain_Q * np.log(clipped) + (1 - gain_Q) * np.log1p(-clipped)).mean())
