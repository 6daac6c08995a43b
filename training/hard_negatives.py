"""Hard negatives: items that look right for a request and were not taken.

Huang et al., "Embedding-based Retrieval in Facebook Search" (KDD 2020, arXiv 2006.11632, section 6.1): what
the model itself ranks high, but not highest, where what the user wants may stand unlabelled; a few hard ones
among many easy ones. They may also come with the requests: what pre-ranking dropped or ranking scored low, or
what users were shown and left.

Legend: Q = requests, N = items, D = width, B = requests at once, K = ranks looked at, R = hard items that are
kept of a request, H = hard negatives of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from training.datasets.tables import row_numbers

SOURCES = ("ranks", "rejected", "actions")
_TOGETHER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HardNegatives:
    """Where hard negatives come from and when they take part."""

    per_positive: int = 0
    """Hard negatives of each positive in a step; with 0 there are none."""
    source: str = "ranks"
    """"ranks": what the model itself ranks from `first_rank` to `last_rank`, found anew at each epoch;
    "rejected": candidates that pre-ranking dropped or ranking scored low, which only the late model has;
    "actions": the items of the user's events with one of `actions`, such as what was seen and not clicked."""
    first_rank: int = 101
    last_rank: int = 500
    actions: tuple[str, ...] = ()
    kept: int = 20
    """Hard items that are remembered of each request; steps draw from them."""
    from_epoch: int = 2
    """The first epoch with them."""
    until_epoch: int = 0
    """The last one; with 0 they stay. Easy negatives alone after hard ones are hard-to-easy transfer."""
    alone: bool = False
    """Whether epochs with hard negatives have no easy ones."""
    of_others: bool = False
    """Whether they are negatives of the batch's other requests in place of their own: with source "actions"
    in-batch negatives enriched by what others saw and left (eBay, arXiv 2102.06156)."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {self.source!r}")
        if min(self.per_positive, self.until_epoch) < 0 or min(self.kept, self.from_epoch) < 1:
            raise ValueError(
                "per_positive and until_epoch must be at least 0, kept and from_epoch at least 1"
            )
        if not 1 <= self.first_rank <= self.last_rank:
            raise ValueError("first_rank must be at least 1 and last_rank no less than it")
        if self.per_positive and self.source == "actions" and not self.actions:
            raise ValueError("hard negatives of source 'actions' need actions")
        if self.of_others and (self.source != "actions" or self.alone):
            raise ValueError("of_others is for source 'actions', beside easy negatives")

    def active(self, epoch: int) -> bool:
        """Return whether steps of this epoch, counted from 1, have hard negatives."""
        return self.per_positive > 0 and self.from_epoch <= epoch and epoch <= (self.until_epoch or epoch)


class HardItems(nn.Module):
    """The hard items of every request [Q, R], rows or -1; buffers, so that checkpoints have them."""

    row_QR: Tensor
    epoch: Tensor

    def __init__(self, config: HardNegatives, requests: int, given_QR: Tensor | None = None) -> None:
        """Remember what came with the requests, or nothing yet."""
        super().__init__()
        self.config = config
        empty_QR = torch.full((requests, config.kept), -1, dtype=torch.int64)
        self.register_buffer("row_QR", empty_QR if given_QR is None else given_QR)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    @property
    def active(self) -> bool:
        """Return whether the epoch under way has hard negatives."""
        return self.config.active(int(self.epoch))

    def start_epoch(self, mine: Callable[[], Tensor]) -> None:
        """Begin the next epoch; `mine` gives the items [Q, R] where the model itself tells what is hard."""
        self.epoch += 1
        if self.active and self.config.source == "ranks":
            self.row_QR = mine()

    def draw(self, batch_B: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return hard negatives [B, H] of the requests, -1 where one has none; None in epochs without."""
        if not self.active:
            return None
        row_BR = self.row_QR[batch_B]
        known_B1 = (row_BR >= 0).sum(dim=1, keepdim=True).clamp(min=1)
        drawn_BH = torch.rand(len(batch_B), self.config.per_positive, generator=generator) * known_B1
        return row_BR.gather(1, drawn_BH.long())


class OwnedItems:
    """Which items each owner has taken; owner -1 has taken the request's own item alone."""

    def __init__(self, row_Q: Tensor, owner_Q: Tensor, items: int) -> None:
        self.items = items
        self.key_E = torch.unique(owner_Q[owner_Q >= 0] * items + row_Q[owner_Q >= 0])

    def have(self, owner_B: Tensor, row_BK: Tensor) -> Tensor:
        """Return [B, K]: whether the owner has taken the item."""
        if not len(self.key_E):
            return torch.zeros_like(row_BK, dtype=torch.bool)
        key_BK = owner_B.unsqueeze(1) * self.items + row_BK
        at_BK = torch.searchsorted(self.key_E, key_BK).clamp(max=len(self.key_E) - 1)
        known_BK: Tensor = self.key_E[at_BK] == key_BK
        return known_BK & (owner_B.unsqueeze(1) >= 0)


def chances(row_QR: Tensor, items: int) -> Tensor:
    """Return how likely a draw for a random request is each item [N]; below 1 in all if some have none."""
    known_QR = row_QR >= 0
    part_QR = (known_QR / known_QR.sum(dim=1, keepdim=True).clamp(min=1)).to(torch.float64)
    return torch.bincount(row_QR[known_QR], weights=part_QR[known_QR], minlength=items) / len(row_QR)


def by_rank(
    config: HardNegatives,
    encode: Callable[[Tensor], Tensor],
    item_ND: Tensor,
    row_Q: Tensor,
    owner_Q: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return [Q, R] rows drawn from the ranks that the model gives them, -1 where there are too few.

    `encode` gives the query vectors [B, D] of request numbers [B]. What the request or its owner took is left
    out.
    """
    owned = OwnedItems(row_Q, owner_Q, len(item_ND))
    last = min(config.last_rank, len(item_ND))
    first = min(config.first_rank, last)
    found = []
    for batch_B in torch.arange(len(row_Q)).split(_TOGETHER):  # type: ignore[no-untyped-call]
        score_BN = encode(batch_B) @ item_ND.T
        row_BK = score_BN.topk(last, dim=1).indices[:, first - 1 :]
        taken_BK = owned.have(owner_Q[batch_B], row_BK) | (row_BK == row_Q[batch_B].unsqueeze(1))
        found.append(some_of(row_BK, taken_BK, config.kept, generator))
    return torch.cat(found)


def by_actions(config: HardNegatives, events: pa.Table, items: pa.Table, user_ids: Sequence[str]) -> Tensor:
    """Return [Q, R] rows of the newest items on which each request's user acted so, -1 behind the last."""
    acted = events.filter(pc.is_in(events.column("action"), pa.array(config.actions)))
    row_E = row_numbers(acted.column("item_id"), items.column("item_id"))
    by_user: dict[str, list[int]] = {}
    for user_id, row in zip(acted.column("user_id").to_pylist(), row_E.tolist(), strict=True):
        if row >= 0:
            by_user.setdefault(user_id, []).append(row)
    row_QR = np.full((len(user_ids), config.kept), -1, np.int64)
    for row_R, user_id in zip(row_QR, user_ids, strict=True):
        newest = by_user.get(user_id, [])[-config.kept :]
        row_R[: len(newest)] = newest
    return torch.from_numpy(row_QR)


def rejected(
    config: HardNegatives,
    row_QC: Tensor,
    open_QC: Tensor,
    dropped_QC: Tensor | None,
    logit_QC: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """Return [Q, R] rows of candidates that a cascade had no use for, -1 behind the last.

    Those that pre-ranking dropped, and the half of those which it passed on that ranking's logits put last;
    `open_QC` says which of them are candidates and not what was taken.
    """
    passed_QC = open_QC if dropped_QC is None else open_QC & ~dropped_QC
    useless_QC = open_QC & ~passed_QC
    if logit_QC is not None:
        rank_QC = ranks(logit_QC.masked_fill(~passed_QC, float("-inf")))
        useless_QC |= passed_QC & (rank_QC >= passed_QC.sum(dim=1, keepdim=True) / 2)
    return some_of(row_QC, ~useless_QC, config.kept, generator)


def ranks(logit_QC: Tensor) -> Tensor:
    """Return each candidate's place [Q, C], 0 for the highest logit."""
    return logit_QC.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def some_of(row_BK: Tensor, masked_BK: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return [B, count] of the unmasked rows at random, known ones first, -1 for those that there are not."""
    order_BK = torch.rand(row_BK.shape, generator=generator).masked_fill(masked_BK, 2.0).argsort(dim=1)
    chosen_BR = order_BK[:, :count]
    row_BR = row_BK.gather(1, chosen_BR).masked_fill(masked_BK.gather(1, chosen_BR), -1)
    missing = count - row_BR.shape[1]
    return nn.functional.pad(row_BR, (0, missing), value=-1) if missing > 0 else row_BR
