"""Trains a history transformer on what users did, action after action.

Two objectives: "next", every place of a history predicts the action after it (SASRec, arXiv 1808.09781);
and "all_action", it predicts one drawn from the next few (the dense all-action loss of PinnerFormer, arXiv
2205.04507, with positions for days). Losses: the softmax over the whole catalogue, or over the batch's own
items and uniform ones, with logQ correction (PinnerFormer's).

Legend: W = windows of users' actions, B = windows of a batch, L = events, S = L + 1 places, P = places of a
batch that predict something, D = width, M = items that a batch is scored against, N = items.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from shards.feature_kinds import Categories, HistoryItems, ItemId
from shards.features import FeatureSpec
from training import losses
from training.checkpoints import NOT_KEPT, Checkpoint
from training.datasets.tables import row_numbers, timestamps_ms
from training.models.history_transformer import HistoryTransformer, HistoryTransformerConfig
from training.samplers import MixedSampler
from training.tensors import Tensors
from training.trainer import FitConfig, Fitted, Observer, fit, ignore

OBJECTIVES = ("next", "all_action")
LOSSES = ("sampled", "full")

_SHUFFLED_TOGETHER = 16
"""Batches whose windows are sorted by length, so that little of a batch is padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceTraining:
    """How to train a history transformer."""

    model: HistoryTransformerConfig = field(default_factory=HistoryTransformerConfig)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=12, batch_size=256, weight_decay=0.0, patience=12, warmup_steps=200, last_rate=0.05
        )
    )
    objective: str = "next"
    horizon: int = 5
    """How many actions on "all_action" looks."""
    loss: str = "sampled"
    negatives: int = 2048
    """Items drawn uniformly for each batch, beside its own, where the loss samples."""
    log_q: bool = True
    """Whether scores are corrected for how often sampling meets each item."""
    mask_own: bool = False
    """Whether a user's other actions of the batch are no negatives. They teach that what was taken is not
    taken again, where that is so."""
    equal_users: bool = False
    """Whether every user weighs the same, or every action."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.horizon < 1:
            raise ValueError("horizon must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Users' actions in order, cut into windows of at most S; items are rows + 1, 0 pads on the right."""

    item_WS: Tensor
    user_W: Tensor

    def lengths(self) -> Tensor:
        """Return how many actions each window holds [W]."""
        return (self.item_WS > 0).sum(dim=1)


def windows_of(events: pa.Table, items: pa.Table, max_len: int) -> Windows:
    """Return the actions of every user, each to be predicted once from at most `max_len` before it.

    Windows are cut from the end, so that the newest action of a user has the longest history.
    """
    row_E = row_numbers(events.column("item_id"), items.column("item_id"))
    names, user_E = np.unique(events.column("user_id").to_numpy(), return_inverse=True)
    order = np.lexsort((timestamps_ms(events), user_E))
    order = order[row_E[order] >= 0]
    ends = np.searchsorted(user_E[order], np.arange(len(names) + 1))
    windows, users = [], []
    for user, (start, end) in enumerate(pairwise(ends.tolist())):
        for last in range(end, start, -(max_len + 1)):
            windows.append(row_E[order[max(start, last - max_len - 1) : last]] + 1)
            users.append(user)
    item_WS = np.zeros((len(windows), max_len + 1), np.int64)
    for row_S, window in zip(item_WS, windows, strict=True):
        row_S[: len(window)] = window
    return Windows(item_WS=torch.from_numpy(item_WS), user_W=torch.tensor(users))


def new_model(config: HistoryTransformerConfig, spec: FeatureSpec, item: Tensors) -> HistoryTransformer:
    """Return a model of the fitted spec; `item` holds the features of the whole catalogue [N, …].

    Raises ValueError where the spec has not just one history, one item id and at most one list of categories.
    """
    histories = [feature for feature in spec.features if isinstance(feature, HistoryItems)]
    ids = [feature for feature in spec.features if isinstance(feature, ItemId)]
    attributes = [feature for feature in spec.features if isinstance(feature, Categories)]
    others = len(spec.features) - len(histories) - len(ids) - len(attributes)
    if (len(histories), len(ids)) != (1, 1) or len(attributes) > 1 or others:
        raise ValueError(
            "a history transformer reads HistoryItems, ItemId and perhaps Categories, one of each"
        )
    rows = item[ids[0].name]
    known = [item[feature.name] for feature in attributes]
    return HistoryTransformer(
        config,
        history=histories[0].name,
        item=ids[0].name,
        max_len=histories[0].max_len,
        attribute_NA=known[0] if known else torch.zeros(len(rows), 1, dtype=torch.int64),
        attributes=attributes[0].cardinality if attributes else 1,
    )


def train_sequences(
    model: HistoryTransformer,
    training: SequenceTraining,
    windows: Windows,
    items: int,
    generator: torch.Generator,
    *,
    evaluate: Callable[[], float] | None = None,
    observe: Observer = ignore,
    checkpoint: Checkpoint = NOT_KEPT,
) -> Fitted:
    """Train in place on all windows, over a catalogue of so many items."""
    loss = SequenceLoss(model, training, windows, items, generator)
    return fit(
        "history",
        model,
        training.fit,
        batches=lambda: batches_by_length(windows.lengths(), training.fit.batch_size, generator),
        loss=loss,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoint,
    )


def batches_by_length(length_W: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the numbers of all windows in random batches of about one length each, in random order."""
    shuffled = torch.randperm(len(length_W), generator=generator)
    batches: list[Tensor] = []
    for together in torch.split(shuffled, batch_size * _SHUFFLED_TOGETHER):
        batches += torch.split(together[length_W[together].argsort(stable=True)], batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class SequenceLoss:
    """The loss of a batch of windows."""

    def __init__(
        self,
        model: HistoryTransformer,
        training: SequenceTraining,
        windows: Windows,
        items: int,
        generator: torch.Generator,
    ) -> None:
        self.model, self.training, self.windows, self.generator = model, training, windows, generator
        self.length_W = windows.lengths()
        taken = windows.item_WS[windows.item_WS > 0] - 1
        self.sampler = MixedSampler(torch.bincount(taken, minlength=items), drawn=training.negatives)
        self.every_N = torch.arange(items)

    def __call__(self, batch_B: Tensor) -> Tensor:
        """Return the mean loss of the batch's actions, or of its users."""
        longest = int(self.length_W[batch_B].max())
        item_BS = self.windows.item_WS[batch_B, :longest]
        target_BS = self.targets(item_BS)
        there_BS = target_BS > 0
        vector_PD = self.model.encode_places(item_BS[:, :-1])[there_BS]
        user_P = self.windows.user_W[batch_B].unsqueeze(1).expand_as(item_BS)[there_BS]
        loss_P = self._losses(vector_PD, target_BS[there_BS] - 1, user_P)
        if not self.training.equal_users:
            return loss_P.mean()
        weight_P = (1.0 / there_BS.sum(dim=1)).unsqueeze(1).expand_as(there_BS)[there_BS]
        return (loss_P * weight_P).sum() / weight_P.sum()

    def targets(self, item_BS: Tensor) -> Tensor:
        """Return the item that each place predicts [B, S]: the next one, or one of the next few at random."""
        if self.training.objective == "next":
            return item_BS
        number_S = torch.arange(item_BS.shape[1])
        left_BS = (item_BS > 0).sum(dim=1, keepdim=True) - number_S
        ahead_BS = torch.rand(item_BS.shape, generator=self.generator) * left_BS.clamp(
            0, self.training.horizon
        )
        return item_BS.gather(1, number_S + ahead_BS.long()).masked_fill(left_BS <= 0, 0)

    def _losses(self, vector_PD: Tensor, row_P: Tensor, user_P: Tensor) -> Tensor:
        temperature = self.model.temperature()
        if self.training.loss == "full":
            logit_PN = vector_PD @ self.model.encode_rows(self.every_N + 1).T / temperature
            return F.cross_entropy(logit_PN, row_P, reduction="none")
        owner_P = user_P if self.training.mask_own else torch.full_like(user_P, -1)
        sampled = self.sampler.sample(row_P, owner_P, self.generator)
        logit_PM = vector_PD @ self.model.encode_rows(sampled.row_M + 1).T / temperature
        if self.training.log_q:
            logit_PM = losses.corrected(logit_PM, sampled.log_q_M)
        if self.training.mask_own:
            others_PM = sampled.masked_BM.scatter(1, sampled.positive_B.unsqueeze(1), False)
            logit_PM = logit_PM.masked_fill(others_PM, losses.MASKED)
        return F.cross_entropy(logit_PM, sampled.positive_B, reduction="none")
