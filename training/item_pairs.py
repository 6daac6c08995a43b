"""Trains vectors of items on pairs that one user met within some hours (Avito's item similarity).

Every event that has company is an anchor; its positive is drawn from the other events of its user within the
hours. Negatives are drawn in proportion to the root of how often items were met, shared by the batch; only
those count that are not of the anchor's company and, with `about`, were about at its time. All are scored;
the loss is on the hardest of each anchor, and gradients flow through those alone.

Legend: E = events by user and time, B = anchors of a batch, M = negatives that a batch scores, N = items.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from shards.forward_index import ForwardIndex
from training import losses
from training.checkpoints import NOT_KEPT, Checkpoint
from training.datasets.tables import timestamps_ms
from training.models.item_tower import ItemTower, ItemTowerConfig
from training.tensors import Tensors, rows_of
from training.trainer import FitConfig, Fitted, Observer, fit, ignore, shuffled_batches

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPairTraining:
    """How to train vectors of items on pairs."""

    model: ItemTowerConfig = field(default_factory=ItemTowerConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(epochs=2, batch_size=256))
    within_hours: float = 8.0
    """How far apart the two events of a pair may be."""
    negatives: int = 4000
    """Items drawn for each batch."""
    negative_power: float = 0.5
    """They are drawn in proportion to how often they were met, to this power."""
    about: bool = True
    """Whether only items that had been met by the anchor's time, and were met again, are negatives of it; not
    for data whose times are made up."""
    hardest: int = 100
    """Of each anchor's negatives so many that score highest count; 0 for all."""

    def __post_init__(self) -> None:
        if not self.within_hours > 0:
            raise ValueError("within_hours must be above 0")
        if self.negatives < 1 or self.hardest < 0:
            raise ValueError("negatives must be at least 1 and hardest not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPairs:
    """Events by user, then time; the company of an event are those from `low_E` to before `high_E`."""

    row_E: Tensor
    time_E: Tensor
    low_E: Tensor
    high_E: Tensor
    count_N: Tensor
    first_N: Tensor
    """When an item was first met, and when last."""
    last_N: Tensor

    def anchors(self) -> Tensor:
        """Return the numbers of the events that have company."""
        return (self.high_E - self.low_E > 1).nonzero().squeeze(1)

    def positives(self, anchor_B: Tensor, generator: torch.Generator) -> Tensor:
        """Return one of the other events of each anchor's company [B], drawn evenly."""
        low_B = self.low_E[anchor_B]
        others_B = self.high_E[anchor_B] - low_B - 1
        drawn_B = low_B + (torch.rand(len(anchor_B), generator=generator) * others_B).long()
        return drawn_B + (drawn_B >= anchor_B).long()

    def about(self, time_B: Tensor, row_M: Tensor) -> Tensor:
        """Return which items were about at each time [B, M]: met by then, and met then or later."""
        time_B1 = time_B.unsqueeze(1)
        return (self.first_N[row_M] <= time_B1) & (time_B1 <= self.last_N[row_M])

    def company(self, anchor_B: Tensor, row_M: Tensor) -> Tensor:
        """Return which items are of each anchor's company, itself included [B, M]."""
        size_B = self.high_E[anchor_B] - self.low_E[anchor_B]
        owner = torch.repeat_interleave(torch.arange(len(anchor_B)), size_B)
        step = torch.arange(len(owner)) - (size_B.cumsum(0) - size_B)[owner]
        row = self.row_E[self.low_E[anchor_B][owner] + step]
        place_N = torch.full((len(self.count_N),), -1)
        place_N[row_M] = torch.arange(len(row_M))
        found = place_N[row] >= 0
        of_BM = torch.zeros(len(anchor_B), len(row_M), dtype=torch.bool)
        of_BM[owner[found], place_N[row[found]]] = True
        return of_BM


def item_pairs(events: pa.Table, items: ForwardIndex, within_hours: float) -> ItemPairs:
    """Return the events with their company: what the same user met at most so many hours before or after."""
    row_E = items.rows_of(events.column("item_id").to_pylist())
    user_E = events.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
    time_E = timestamps_ms(events)
    order = np.lexsort((time_E, user_E))
    order = order[row_E[order] >= 0]
    row_E, time_E = row_E[order], time_E[order]
    within_ms = int(within_hours * HOUR_MS)
    # Users stand further apart on one line of time than any of them reaches.
    span_ms = int(np.ptp(time_E)) + within_ms + 1 if len(time_E) else 0
    line_E = user_E[order].astype(np.int64) * span_ms + (time_E - time_E.min(initial=0))
    first_N = np.full(len(items), np.iinfo(np.int64).max)
    last_N = np.full(len(items), np.iinfo(np.int64).min)
    np.minimum.at(first_N, row_E, time_E)
    np.maximum.at(last_N, row_E, time_E)
    return ItemPairs(
        row_E=torch.from_numpy(row_E),
        time_E=torch.from_numpy(time_E),
        low_E=torch.from_numpy(np.searchsorted(line_E, line_E - within_ms)),
        high_E=torch.from_numpy(np.searchsorted(line_E, line_E + within_ms, side="right")),
        count_N=torch.from_numpy(np.bincount(row_E, minlength=len(items))),
        first_N=torch.from_numpy(first_N),
        last_N=torch.from_numpy(last_N),
    )


def train_item_pairs(
    model: ItemTower,
    training: ItemPairTraining,
    pairs: ItemPairs,
    item: Tensors,
    generator: torch.Generator,
    *,
    evaluate: Callable[[], float] | None = None,
    observe: Observer = ignore,
    checkpoint: Checkpoint = NOT_KEPT,
) -> Fitted:
    """Train in place on the pairs; `item` holds the features of the whole catalogue [N, …]."""
    anchors = pairs.anchors()
    size = training.fit.batch_size
    return fit(
        "item_pairs",
        model,
        training.fit,
        batches=lambda: [anchors[batch] for batch in shuffled_batches(len(anchors), size, generator)],
        loss=ItemPairLoss(model, training, pairs, item, generator),
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoint,
    )


class ItemPairLoss:
    """The loss of a batch of anchors."""

    def __init__(
        self,
        model: ItemTower,
        training: ItemPairTraining,
        pairs: ItemPairs,
        item: Tensors,
        generator: torch.Generator,
    ) -> None:
        self.model, self.training, self.pairs, self.item = model, training, pairs, item
        self.generator = generator
        self.weight_N = pairs.count_N.to(torch.float64) ** training.negative_power * (pairs.count_N > 0)

    def __call__(self, anchor_B: Tensor) -> Tensor:
        """Return the softmax loss of each anchor's positive against its negatives."""
        pairs = self.pairs
        other_B = pairs.positives(anchor_B, self.generator)
        drawn = torch.multinomial(
            self.weight_N, self.training.negatives, replacement=True, generator=self.generator
        )
        row_M = torch.unique(drawn)
        masked_BM = pairs.company(anchor_B, row_M)
        if self.training.about:
            masked_BM |= ~pairs.about(pairs.time_E[anchor_B], row_M)
        anchor_row_B, other_row_B = pairs.row_E[anchor_B], pairs.row_E[other_B]
        if self.training.hardest:
            hard_BM = self._hardest(anchor_row_B, row_M, masked_BM)
            met_M = hard_BM.any(dim=0)
            row_M, masked_BM = row_M[met_M], ~hard_BM[:, met_M]
        one_BD, other_BD, vector_MD = (self._vectors(row) for row in (anchor_row_B, other_row_B, row_M))
        temperature = self.model.temperature()
        positive_B = (one_BD * other_BD).sum(dim=1) / temperature
        # Somebody may take an item twice, which is no pair.
        kept_B = anchor_row_B != other_row_B
        if not kept_B.any():
            return positive_B.sum() * 0
        logit_BM = one_BD @ vector_MD.T / temperature
        return losses.softmax_loss(positive_B[kept_B], logit_BM[kept_B], masked_BM[kept_B])

    @torch.no_grad()
    def _hardest(self, row_B: Tensor, row_M: Tensor, masked_BM: Tensor) -> Tensor:
        """Return which negatives are each anchor's hardest [B, M]."""
        score_BM = self._vectors(row_B) @ self._vectors(row_M).T
        score_BM = score_BM.masked_fill(masked_BM, -torch.inf)
        best = score_BM.topk(min(self.training.hardest, len(row_M)), dim=1).indices
        chosen_BM = torch.zeros_like(masked_BM).scatter(1, best, True)
        return chosen_BM & ~masked_BM

    def _vectors(self, rows: Tensor) -> Tensor:
        vectors: Tensor = self.model(rows_of(self.item, rows))
        return vectors


def found_within(vector_ND: Tensor, anchor: Tensor, other: Tensor, k: int) -> float:
    """Return the share of pairs of rows [Q] whose other item is among the `k` nearest to the anchor."""
    if not len(anchor):
        return float("nan")
    score_QN = vector_ND[anchor] @ vector_ND.T
    score_QN[torch.arange(len(anchor)), anchor] = -torch.inf
    own_Q1 = score_QN.gather(1, other.unsqueeze(1))
    return float(((score_QN > own_Q1).sum(dim=1) < k).float().mean())


def pairs_between(pairs: ItemPairs, start_ms: int, end_ms: int) -> tuple[Tensor, Tensor]:
    """Return the rows of the two items [Q] of each event in [start, end) and the next one of its company."""
    anchor = pairs.anchors()
    inside = (pairs.time_E[anchor] >= start_ms) & (pairs.time_E[anchor] < end_ms)
    anchor = anchor[inside & (anchor + 1 < pairs.high_E[anchor])]
    anchor = anchor[pairs.row_E[anchor] != pairs.row_E[anchor + 1]]
    return pairs.row_E[anchor], pairs.row_E[anchor + 1]
