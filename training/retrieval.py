"""Trains a two-tower model on (request, item taken) pairs and measures its recall over the whole catalogue.

Legend: Q = requests, N = items, B = batch, M = items that a batch is scored against.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training import losses
from training.checkpoints import NOT_KEPT, Checkpoint
from training.models.history_transformer import HistoryTransformer
from training.models.prod2vec import Prod2Vec
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.paths import PathLearner
from training.samplers import MixedSampler, Sampled
from training.tensors import Tensors, rows_of
from training.trainer import FitConfig, Fitted, Observer, fit, ignore, shuffled_batches

Towers = TwoTower | HistoryTransformer | Prod2Vec
"""What encodes a request and an item into one space."""

RetrievalLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: Mapping[str, RetrievalLoss] = {
    "softmax": losses.softmax_loss,
    "pointwise": losses.pointwise_loss,
    "hinge": losses.hinge_loss,
    "logistic": losses.logistic_loss,
}
"""Listwise, pointwise and two pairwise trainings of one model."""

_EVALUATION_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerTraining:
    """How to train the two-tower model."""

    model: TwoTowerConfig = field(default_factory=TwoTowerConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(batch_size=512, epochs=12))
    loss: str = "softmax"
    negatives: int = 1024
    """Negatives drawn for each batch beside its own items."""
    negative_power: float = 0.0
    """Drawn in proportion to popularity to this power: 0 is uniform."""
    log_q: bool = True
    """Whether scores are corrected for how often sampling meets each item."""

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSet:
    """Requests and the row of the item that each one took; owners group requests of one user."""

    request: Tensors
    row_Q: Tensor
    owner_Q: Tensor

    def __len__(self) -> int:
        return len(self.row_Q)


def train_two_tower(
    model: TwoTower,
    training: TwoTowerTraining,
    examples: RetrievalSet,
    item: Tensors,
    generator: torch.Generator,
    *,
    evaluate: Callable[[], float] | None = None,
    observe: Observer = ignore,
    checkpoint: Checkpoint = NOT_KEPT,
    paths: PathLearner | None = None,
) -> Fitted:
    """Train in place on the examples; `item` holds the features of the whole catalogue [N, …].

    `paths` learn at the same time; items move on them between epochs.
    """
    items = len(next(iter(item.values())))
    sampler = MixedSampler(
        torch.bincount(examples.row_Q, minlength=items),
        drawn=training.negatives,
        power=training.negative_power,
    )

    def loss(batch_B: Tensor) -> Tensor:
        row_B = examples.row_Q[batch_B]
        sampled = sampler.sample(row_B, examples.owner_Q[batch_B], generator)
        vector_BD = model.encode_query(rows_of(examples.request, batch_B))
        value = _sampled_loss(training, model.compare(vector_BD, rows_of(item, sampled.row_M)), sampled)
        return value if paths is None else value + paths.loss(vector_BD, row_B)

    def batches() -> list[Tensor]:
        if paths is not None:
            _move(paths, model, examples, item)
        return shuffled_batches(len(examples), training.fit.batch_size, generator)

    return fit(
        "two_tower",
        model if paths is None else nn.ModuleList([model, paths.model]),
        training.fit,
        batches=batches,
        loss=loss,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoint,
    )


@torch.inference_mode()
def _move(paths: PathLearner, model: TwoTower, examples: RetrievalSet, item: Tensors) -> None:
    model.eval()
    paths.move(encoded(model, examples), examples.row_Q, model.encode_item(item))


def encoded(model: Towers, examples: RetrievalSet) -> Tensor:
    """Return the vectors of all requests [Q, D]."""
    batches = torch.arange(len(examples)).split(_EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    return torch.cat([model.encode_query(rows_of(examples.request, batch_B)) for batch_B in batches])


def _sampled_loss(training: TwoTowerTraining, logit_BM: Tensor, sampled: Sampled) -> Tensor:
    if training.log_q:
        logit_BM = losses.corrected(logit_BM, sampled.log_q_M)
    positive_B = logit_BM.gather(1, sampled.positive_B.unsqueeze(1)).squeeze(1)
    return LOSSES[training.loss](positive_B, logit_BM, sampled.masked_BM)


def recall_at(model: Towers, examples: RetrievalSet, item: Tensors, k: int) -> float:
    """Return the share of requests whose item is among the k nearest of the whole catalogue."""
    item_ND = model.encode_item(item)
    found = 0
    for batch_B in torch.arange(len(examples)).split(_EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        score_BN = model.encode_query(rows_of(examples.request, batch_B)) @ item_ND.T
        own_B1 = score_BN.gather(1, examples.row_Q[batch_B].unsqueeze(1))
        found += int(((score_BN > own_B1).sum(dim=1) < k).sum())
    return found / max(len(examples), 1)
