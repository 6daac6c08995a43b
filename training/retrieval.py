"""Trains a two-tower model on (request, item taken) pairs and measures its recall over the whole catalogue.

Legend: Q = requests, N = items, B = batch, D = width, M = items that a batch is scored against.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training import losses
from training.augmentations import contrastive_loss, mutual_information, views
from training.checkpoints import NOT_KEPT, Checkpoint
from training.frequencies import StreamingFrequency
from training.hard_negatives import HardItems, by_rank, chances
from training.hard_positives import FailedSearches
from training.models.ensemble import Ensemble
from training.models.history_transformer import HistoryTransformer
from training.models.hydrated import Hydrated
from training.models.prod2vec import Prod2Vec
from training.models.two_tower import TwoTower
from training.paths import PathLearner
from training.samplers import MixedSampler, Sampled, at_random, hardest
from training.share import WHOLE, current_share
from training.tensors import RowSource, Tensors, rows_of
from training.trainer import Fitted, Observer, drawn_batches, fit, ignore, shuffled_batches
from training.two_tower_training import TwoTowerTraining
from training.weighted_sources import SourceShift

Towers = TwoTower | HistoryTransformer | Prod2Vec | Ensemble | Hydrated
"""What encodes a request and an item into one space."""

_EVALUATION_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSet:
    """Requests and the row of the item that each one took; owners group requests of one user."""

    request: RowSource
    row_Q: Tensor
    owner_Q: Tensor
    hard_QR: Tensor | None = None
    """Rows of hard negatives that came with the requests, -1 behind the last one."""

    def __len__(self) -> int:
        return len(self.row_Q)

    def part(self, start: int, end: int) -> "RetrievalSet":
        """Return the requests from one number to another."""
        rows = torch.arange(start, end)
        return RetrievalSet(
            request=rows_of(self.request, rows),
            row_Q=self.row_Q[start:end],
            owner_Q=self.owner_Q[start:end],
            hard_QR=None if self.hard_QR is None else self.hard_QR[start:end],
        )


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
    step = RetrievalLoss(model, training, examples, item, generator, paths)
    return fit(
        "two_tower",
        nn.ModuleList([model, *step.remembered]),
        training.fit,
        batches=step.batches,
        loss=step,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoint,
    )


def encoded(model: Towers, examples: RetrievalSet) -> Tensor:
    """Return the vectors of all requests [Q, D]."""
    batches = torch.arange(len(examples)).split(_EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    return torch.cat([model.encode_query(rows_of(examples.request, batch_B)) for batch_B in batches])


class RetrievalLoss:
    """The loss of a batch of requests; `remembered` is what an epoch leaves to the next beside the model."""

    def __init__(
        self,
        model: TwoTower,
        training: TwoTowerTraining,
        examples: RetrievalSet,
        item: Tensors,
        generator: torch.Generator,
        paths: PathLearner | None = None,
    ) -> None:
        self.model, self.training, self.paths = model, training, paths
        # What is drawn for each example would differ from worker to worker, and so would all later draws.
        self.share = WHOLE if training.counted == "random" else current_share()
        self.examples, self.item, self.generator = examples, item, generator
        self.items = items = len(next(iter(item.values())))
        count_N = torch.bincount(examples.row_Q, minlength=items).to(torch.float64)
        rarity_N = count_N.clamp(min=1.0) ** -training.rare_power
        self.weight_Q = rarity_N[examples.row_Q]
        frequency = StreamingFrequency(items) if training.streaming else None
        hard = training.hard
        self.hard = HardItems(hard, len(examples), examples.hard_QR) if hard.per_positive else None
        self.shift = None
        if training.sources is not None:
            steps = math.ceil(len(examples) / training.fit.batch_size)
            self.shift = SourceShift(training.sources, steps)
        parts = (frequency, self.hard, self.shift, paths.model if paths is not None else None)
        self.remembered: list[nn.Module] = [part for part in parts if part is not None]
        self.failed = None
        if training.hard_positives.times > 1:
            self.failed = FailedSearches(training.hard_positives, len(examples))
            self.remembered.append(self.failed)
        self.related_FF = mutual_information(item) if training.self_supervised.weight else None
        self.sampler = MixedSampler(
            count_N,
            drawn=training.negatives,
            power=training.negative_power,
            in_batch=training.in_batch,
            batch_counts_N=count_N * rarity_N,
            frequency=frequency,
            shared_p_N=self._shared(items),
        )

    def _shared(self, items: int) -> Tensor | None:
        """Return how likely a hard negative is each item [N], where the batch's other requests have it."""
        if self.hard is None or not self.hard.config.of_others:
            return None
        return chances(self.hard.row_QR, items)

    def batches(self) -> list[Tensor]:
        """Begin an epoch and return its batches of request numbers."""
        if self.paths is not None:
            self._move(self.paths)
        if self.hard is not None:
            self.hard.start_epoch(self._mined)
        if self.failed is not None:
            self.failed.start_epoch(self._ranked)
        size = self.training.fit.batch_size
        if self.training.rare_power or self.failed is not None:
            return drawn_batches(self._weights(), size, self.generator)
        return shuffled_batches(len(self.examples), size, self.generator)

    def __call__(self, batch_B: Tensor) -> Tensor:
        """Return the mean loss of the batch's requests."""
        row_B, owner_B = self.examples.row_Q[batch_B], self.examples.owner_Q[batch_B]
        hard_BH = self.hard.draw(batch_B, self.generator) if self.hard is not None else None
        if self.failed is not None:
            self.sampler.expect(torch.bincount(self.examples.row_Q, self._weights(), self.items))
        # All workers sample for the whole batch, and so alike; each scores its part of the requests.
        mine = self.share.part(len(batch_B))
        sampled = self.sampler.sample(row_B, owner_B, self.generator, hard_BH).of(mine)
        vector_BD = self.model.encode_query(rows_of(self.examples.request, batch_B[mine]))
        logit_BM = self.model.compare(vector_BD, rows_of(self.item, sampled.row_M))
        alone = hard_BH is not None and self.training.hard.alone
        if self.shift is not None:
            value = self._against_each(self.shift, logit_BM, sampled)
        else:
            value = self._compared(logit_BM, sampled, alone=alone)
        if self.related_FF is not None:
            value = value + self.training.self_supervised.weight * self._contrasted(self.related_FF)
        value = value if self.paths is None else value + self.paths.loss(vector_BD, row_B[mine])
        return value * self.share.weight(len(batch_B))

    def _contrasted(self, related_FF: Tensor) -> Tensor:
        """Return the contrastive loss of two views of uniform items."""
        config = self.training.self_supervised
        row_M = torch.randperm(self.sampler.drawn_p_N.shape[0], generator=self.generator)[: config.items]
        one, other = views(
            rows_of(self.item, row_M),
            mask=config.mask,
            dropout=config.dropout,
            related_FF=related_FF,
            generator=self.generator,
        )
        return contrastive_loss(
            self.model.encode_item(one), self.model.encode_item(other), config.temperature
        )

    def _compared(self, logit_BM: Tensor, sampled: Sampled, *, alone: bool) -> Tensor:
        """Return the loss of the logits; `alone` where only hard negatives count."""
        training = self.training
        if training.log_q:
            logit_BM = losses.corrected(logit_BM, sampled.log_q_M)
        return self._loss(logit_BM, sampled, self._counted(logit_BM, sampled, alone=alone))

    def _against_each(self, shift: SourceShift, logit_BM: Tensor, sampled: Sampled) -> Tensor:
        """Return the weighted sum of the losses against drawn, in-batch and hard negatives."""
        source, masked_BM = sampled.by_source, sampled.masked_BM
        uniform, in_batch, hard = shift.advance()
        total = logit_BM.new_zeros(())
        for weight, there_M, times_M in (
            (uniform, source.drawn_M, source.drawn_times_M),
            (in_batch, source.batch_M, source.batch_times_M),
        ):
            if weight:
                log_q_M = times_M.clamp(min=1e-9).log().to(logit_BM.dtype)
                seen_BM = losses.corrected(logit_BM, log_q_M) if self.training.log_q else logit_BM
                total = total + weight * self._loss(seen_BM, sampled, masked_BM | ~there_M)
        if hard:
            # What the model chooses itself has no chance that logQ could correct.
            hardest_BM = hardest(logit_BM, masked_BM, shift.weights.hardest)
            total = total + hard * self._loss(logit_BM, sampled, hardest_BM & (masked_BM | ~sampled.hard_BM))
        return total

    def _loss(self, logit_BM: Tensor, sampled: Sampled, masked_BM: Tensor) -> Tensor:
        """Return the loss of each positive against what is not masked."""
        training = self.training
        positive_B = logit_BM.gather(1, sampled.positive_B.unsqueeze(1)).squeeze(1)
        match training.loss:
            case "hinge":
                return losses.hinge_loss(positive_B, logit_BM, masked_BM, margin=training.margin)
            case "logistic":
                return losses.logistic_loss(positive_B, logit_BM, masked_BM)
            case "pointwise" if training.counted != "all":
                return losses.binary_pairs_loss(positive_B, logit_BM, masked_BM)
            case "pointwise":
                return losses.pointwise_loss(positive_B, logit_BM, masked_BM)
            case _:
                return losses.softmax_loss(positive_B, logit_BM, masked_BM)

    def _counted(self, logit_BM: Tensor, sampled: Sampled, *, alone: bool) -> Tensor:
        """Return [B, M]: the masked items, and those that are not among the counted ones of a positive."""
        training, masked_BM = self.training, sampled.masked_BM
        if alone:
            return masked_BM | ~sampled.hard_BM
        if training.counted == "all":
            return masked_BM
        easy_masked_BM = masked_BM | sampled.hard_BM
        if training.counted == "random":
            easy_masked_BM = at_random(easy_masked_BM, training.per_positive, self.generator)
        else:
            easy_masked_BM = hardest(logit_BM, easy_masked_BM, training.per_positive)
        return easy_masked_BM & (masked_BM | ~sampled.hard_BM)

    def _weights(self) -> Tensor:
        """Return how often each request is drawn [Q], up to a factor."""
        return self.weight_Q if self.failed is None else self.weight_Q * self.failed.weight_Q

    @torch.no_grad()
    def _ranked(self) -> Tensor:
        self.model.eval()
        return item_ranks(self.model, self.examples, self.item)

    @torch.inference_mode()
    def _move(self, paths: PathLearner) -> None:
        self.model.eval()
        paths.move(encoded(self.model, self.examples), self.examples.row_Q, self.model.encode_item(self.item))
        current_share().led(paths.model.node_NJL)

    @torch.no_grad()
    def _mined(self) -> Tensor:
        self.model.eval()
        return by_rank(
            self.training.hard,
            lambda batch_B: self.model.encode_query(rows_of(self.examples.request, batch_B)),
            self.model.encode_item(self.item),
            self.examples.row_Q,
            self.examples.owner_Q,
            self.generator,
        )


def best_scores(vector: Tensor, item_ND: Tensor) -> Tensor:
    """Return each item's score [B, N] by a query's vector [B, D], or by the best of its heads [B, H, D]."""
    score = vector @ item_ND.T
    return score.amax(dim=1) if score.ndim == 3 else score


def item_ranks(model: Towers, examples: RetrievalSet, item: Tensors) -> Tensor:
    """Return how many items of the whole catalogue are nearer to each request than its own [Q]."""
    item_ND = model.encode_item(item)
    ranks = [torch.empty(0, dtype=torch.int64)]
    for batch_B in torch.arange(len(examples)).split(_EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        score_BN = best_scores(model.encode_query(rows_of(examples.request, batch_B)), item_ND)
        own_B1 = score_BN.gather(1, examples.row_Q[batch_B].unsqueeze(1))
        ranks.append((score_BN > own_B1).sum(dim=1))
    return torch.cat(ranks)


def recall_at(model: Towers, examples: RetrievalSet, item: Tensors, k: int) -> float:
    """Return the share of requests whose item is among the k nearest of the whole catalogue."""
    return int((item_ranks(model, examples, item) < k).sum()) / max(len(examples), 1)
