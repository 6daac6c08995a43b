"""Trains pre-rankers and rankers listwise on the candidates that the channels found.

Legend: Q = requests, B = batch, C = candidates, K = cross features, N = items, T = tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from shards.candidates import Candidates
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.search_context import SearchContext
from training.checkpoints import NOT_KEPT, Checkpoint
from training.losses import MASKED
from training.task_labels import TaskLabels
from training.task_losses import FittedTasks, listwise_losses, pointwise_losses, thinned
from training.tensors import Tensors, as_tensors, rows_of
from training.trainer import FitConfig, Fitted, Observer, fit, ignore, shuffled_batches

_EVALUATION_BATCH = 256


class CandidateModel(Protocol):
    """What the rankers have in common."""

    def __call__(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor, /
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTraining:
    """How to train a model of candidates."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(batch_size=64, epochs=8, learning_rate=2e-3))
    listwise_weight: float = 1.0
    """Weight of the listwise loss of binary tasks; at 0, requests of which nothing was taken train too."""
    binary_weight: float = 0.1
    """Weight of the loss of each candidate by itself, which makes outputs probabilities, times or numbers."""
    calibrate: bool = False
    """Whether a scale and a shift of logits are fitted to the requests held out, for each probability."""
    second_task_weight: float = 0.3
    """Weight of every task after the first."""
    sampled: int = 100
    """Candidates of a request that one step looks at: what was taken and, drawn anew each time, others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSet:
    """Requests with the candidates they got, padded to one length.

    Labels of the first task mark what was taken; a request of which no channel found it has none. A weight of
    0 is that of a label that is not defined, or of a candidate that is not there.
    """

    request: Tensors
    item: Tensors
    row_QC: Tensor
    present_QC: Tensor
    cross_QCK: Tensor
    label_QCT: Tensor
    weight_QCT: Tensor

    def __len__(self) -> int:
        return len(self.row_QC)

    def __getitem__(self, rows: Tensor) -> "RankingSet":
        return RankingSet(
            request=rows_of(self.request, rows),
            item=self.item,
            row_QC=self.row_QC[rows],
            present_QC=self.present_QC[rows],
            cross_QCK=self.cross_QCK[rows],
            label_QCT=self.label_QCT[rows],
            weight_QCT=self.weight_QCT[rows],
        )

    def columns(self, kept: Sequence[int]) -> "RankingSet":
        """Return the same with some of the cross features."""
        return replace(self, cross_QCK=self.cross_QCK[..., list(kept)])

    def first(self, keep: int) -> "RankingSet":
        """Return each request's first `keep` candidates, in the order in which they were found."""
        return RankingSet(
            request=self.request,
            item=self.item,
            row_QC=self.row_QC[:, :keep],
            present_QC=self.present_QC[:, :keep],
            cross_QCK=self.cross_QCK[:, :keep],
            label_QCT=self.label_QCT[:, :keep],
            weight_QCT=self.weight_QCT[:, :keep],
        )

    def best(self, priority_QC: Tensor, keep: int) -> "RankingSet":
        """Return each request's `keep` candidates of the highest priority, best first."""
        priority_QC = priority_QC.masked_fill(~self.present_QC, MASKED)
        at_QC = priority_QC.sort(dim=1, descending=True, stable=True).indices[:, :keep]
        return RankingSet(
            request=self.request,
            item=self.item,
            row_QC=self.row_QC.gather(1, at_QC),
            present_QC=self.present_QC.gather(1, at_QC),
            cross_QCK=_gathered(self.cross_QCK, at_QC),
            label_QCT=_gathered(self.label_QCT, at_QC),
            weight_QCT=_gathered(self.weight_QCT, at_QC),
        )


def _gathered(value_QCX: Tensor, at_QC: Tensor) -> Tensor:
    return value_QCX.gather(1, at_QC.unsqueeze(-1).expand(-1, -1, value_QCX.shape[-1]))


def ranking_set(
    encoders: Iterable[RequestEncoder],
    items: ForwardIndex,
    contexts: Sequence[SearchContext],
    candidates: Sequence[Candidates],
    labels: Sequence[Sequence[TaskLabels]],
) -> RankingSet:
    """Return the encoded set; `labels` [Q][T] are what items came to.

    Each request's own encoder crosses it with its candidates. Items' own features are as in `items`.
    """
    longest = max((len(found) for found in candidates), default=0)
    tasks = len(labels[0]) if labels else 0
    row_QC = np.zeros((len(contexts), longest), np.int64)
    present_QC = np.zeros(row_QC.shape, np.bool_)
    label_QCT, weight_QCT = np.zeros((2, *row_QC.shape, tasks), np.float32)
    cross_QCK: NDArray[np.float32] | None = None
    encoder: RequestEncoder | None = None
    for q, (encoder, context, found) in enumerate(zip(encoders, contexts, candidates, strict=True)):
        rows = items.rows_of(found.item_ids)
        cross_CK = encoder.encode_cross(context, rows, found)
        if cross_QCK is None:
            cross_QCK = np.zeros((*row_QC.shape, cross_CK.shape[1]), np.float32)
        row_QC[q, : len(rows)], present_QC[q, : len(rows)], cross_QCK[q, : len(rows)] = rows, True, cross_CK
        for task, known in enumerate(labels[q]):
            label_QCT[q, : len(rows), task], weight_QCT[q, : len(rows), task] = known.of(found.item_ids)
    if cross_QCK is None or encoder is None:
        raise ValueError("there are no requests to rank for")
    return RankingSet(
        request=as_tensors(encoder.encode_requests(contexts)),
        item=as_tensors(encoder.encode_items(items.columns(items.names))),
        row_QC=torch.from_numpy(row_QC),
        present_QC=torch.from_numpy(present_QC),
        cross_QCK=torch.from_numpy(cross_QCK),
        label_QCT=torch.from_numpy(label_QCT),
        weight_QCT=torch.from_numpy(weight_QCT),
    )


def joined(parts: Sequence[RankingSet]) -> RankingSet:
    """Return the requests of all parts over the same items, padded to one length."""
    longest = max(part.row_QC.shape[1] for part in parts)

    def whole(values: Sequence[Tensor]) -> Tensor:
        behind = (0, 0) * (values[0].ndim - 2)
        return torch.cat([pad(each, (*behind, 0, longest - each.shape[1])) for each in values])

    return RankingSet(
        request={name: torch.cat([part.request[name] for part in parts]) for name in parts[0].request},
        item=parts[0].item,
        row_QC=whole([part.row_QC for part in parts]),
        present_QC=whole([part.present_QC for part in parts]),
        cross_QCK=whole([part.cross_QCK for part in parts]),
        label_QCT=whole([part.label_QCT for part in parts]),
        weight_QCT=whole([part.weight_QCT for part in parts]),
    )


def logits_of(model: CandidateModel, batch: RankingSet) -> Tensor:
    """Return the logits [B, C, T]; every item of the batch is encoded once."""
    unique_M, inverse_BC = torch.unique(batch.row_QC, return_inverse=True)
    return model(batch.request, rows_of(batch.item, unique_M), inverse_BC, batch.cross_QCK)


def train_ranker(
    name: str,
    model: torch.nn.Module,
    training: RankingTraining,
    examples: RankingSet,
    tasks: FittedTasks,
    generator: torch.Generator,
    *,
    evaluate: Callable[[], float] | None = None,
    penalty: Callable[[RankingSet], Tensor] | None = None,
    observe: Observer = ignore,
    checkpoint: Checkpoint = NOT_KEPT,
) -> Fitted:
    """Train in place to the least loss and `penalty`; if listwise, on requests with a relevant candidate.

    Where a task looks at a share of its negatives all requests train: what undoes that is exact for those.
    """
    relevant_alone = training.listwise_weight and not tasks.thins
    taught_QC = examples.label_QCT[..., 0] > 0 if relevant_alone else examples.present_QC
    useful_Q = taught_QC.any(dim=1).nonzero().squeeze(1)
    named = enumerate(tasks.tasks)
    weight_T = torch.tensor([task.weighed(t, training.second_task_weight) for t, task in named])

    def loss(batch_B: Tensor) -> Tensor:
        batch = _looked_at(examples[useful_Q[batch_B]], training, tasks, generator)
        logit_BCT = logits_of(model, batch)
        labels = (batch.label_QCT, batch.weight_QCT)
        loss_T = training.binary_weight * pointwise_losses(tasks, logit_BCT, *labels)
        if training.listwise_weight:
            loss_T = loss_T + training.listwise_weight * listwise_losses(tasks, logit_BCT, *labels)
        task_loss = (loss_T * weight_T).sum()
        return task_loss if penalty is None else task_loss + penalty(batch)

    return fit(
        name,
        model,
        training.fit,
        batches=lambda: shuffled_batches(len(useful_Q), training.fit.batch_size, generator),
        loss=loss,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoint,
    )


def _looked_at(
    batch: RankingSet, training: RankingTraining, tasks: FittedTasks, generator: torch.Generator
) -> RankingSet:
    """Return the batch with what was taken and some others: a fixed number, or each by its tasks' shares."""
    priority_BC = torch.rand(batch.row_QC.shape, generator=generator)
    if not tasks.thins:
        return batch.best(priority_BC + (batch.label_QCT[..., 0] > 0), training.sampled)
    weight_BCT = thinned(tasks, batch.label_QCT, batch.weight_QCT, generator)
    kept_BC = (weight_BCT > 0).any(dim=-1)
    return replace(batch, weight_QCT=weight_BCT).best(kept_BC.float(), int(kept_BC.sum(dim=1).max()))


def predict(model: CandidateModel, examples: RankingSet) -> Tensor:
    """Return the logits [Q, C, T] of a whole set."""
    batches = torch.arange(len(examples)).split(_EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    return torch.cat([logits_of(model, examples[batch]) for batch in batches])


def ndcg_at_10(score_QC: Tensor, examples: RankingSet) -> float:
    """Return the mean NDCG@10 of the first task over all requests; an item no channel found counts 0."""
    rank_Q = taken_ranks(score_QC, examples)
    gain_Q = torch.where((rank_Q > 0) & (rank_Q <= 10), 1.0 / torch.log2(rank_Q + 1.0), 0.0)
    return float(gain_Q.mean())


def taken_ranks(score_QC: Tensor, examples: RankingSet) -> Tensor:
    """Return the place of each request's taken item [Q], 1 for the first; 0 where no channel found it."""
    score_QC = score_QC.masked_fill(~examples.present_QC, MASKED)
    taken_QC = examples.label_QCT[..., 0] > 0
    own_Q1 = score_QC.masked_fill(~taken_QC, MASKED).amax(dim=1, keepdim=True)
    rank_Q = 1 + (score_QC > own_Q1).sum(dim=1)
    return torch.where(taken_QC.any(dim=1), rank_Q, 0)
