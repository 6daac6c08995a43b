"""Negatives for retrieval: a batch's own items, drawn and hard ones, with the log of how often each is met.

Mixed negative sampling (Yang et al., WWW Companion 2020) with logQ correction (Yi et al., RecSys 2019).

Legend: B = positives of a batch, H = hard negatives of a positive, M = distinct items that a batch scores,
N = items.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.frequencies import StreamingFrequency


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Which items of a batch were drawn and which are its own, and how often either is expected [M]."""

    drawn_M: Tensor
    batch_M: Tensor
    drawn_times_M: Tensor
    batch_times_M: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The items that one batch is scored against."""

    row_M: Tensor
    """Distinct item rows, ascending: the batch's positives, the drawn and the hard negatives."""
    log_q_M: Tensor
    """Log of the number of times a batch of this kind is expected to meet each item; 0 for one that is there
    as a hard negative alone."""
    positive_B: Tensor
    """Position of each example's positive in `row_M`."""
    masked_BM: Tensor
    """True where an item must not count as a negative: a positive of the same owner in this batch, or what
    is hard for others alone."""
    hard_BM: Tensor
    """True where an item is a hard negative of the example alone."""
    by_source: Sources
    """The items by where they are from."""

    def of(self, examples: slice) -> "Sampled":
        """Return the same items for some of the examples."""
        return replace(
            self,
            positive_B=self.positive_B[examples],
            masked_BM=self.masked_BM[examples],
            hard_BM=self.hard_BM[examples],
        )


class MixedSampler:
    """Joins in-batch negatives with `drawn` ones from counts ** power: 0 uniform, 0.5 √, 0.75 popularity.

    `batch_counts_N` says how often examples take each item in an epoch, where that is not as often as it was
    taken. Without `in_batch` the items of a batch are no negatives of each other. With `frequency` the
    batch's part of logQ is what that estimates, else it is counted. With `shared_p_N`, how likely a hard
    negative is each item, those are negatives of all examples of the batch but their own.
    """

    def __init__(
        self,
        count_N: Tensor,
        *,
        drawn: int,
        power: float = 0.0,
        in_batch: bool = True,
        batch_counts_N: Tensor | None = None,
        frequency: StreamingFrequency | None = None,
        shared_p_N: Tensor | None = None,
    ) -> None:
        if drawn < 0:
            raise ValueError(f"drawn must not be negative: {drawn}")
        if not drawn and not in_batch:
            raise ValueError("without items of the batch there must be drawn ones")
        count_N = count_N.to(torch.float64)
        batch_counts_N = count_N if batch_counts_N is None else batch_counts_N.to(torch.float64)
        self.drawn, self.in_batch, self.frequency, self.shared_p_N = drawn, in_batch, frequency, shared_p_N
        self.expect(batch_counts_N)
        # Items never counted keep a share of the draws, or they would never be pushed away from a query.
        weight_N = count_N.clamp(min=1.0) ** power
        self.drawn_p_N = weight_N / weight_N.sum()

    def expect(self, batch_counts_N: Tensor) -> None:
        """Say anew how often examples take each item in an epoch."""
        self.batch_p_N = batch_counts_N / batch_counts_N.sum().clamp(min=1e-9)

    def sample(
        self, row_B: Tensor, owner_B: Tensor, generator: torch.Generator, hard_BH: Tensor | None = None
    ) -> Sampled:
        """Return what the batch with these positive rows [B] is scored against.

        Examples with the same non-negative owner [B] mask each other's positives. Hard negatives are rows
        [B, H], -1 for none; each is one for its own example alone, or for all others where they are shared.
        """
        drawn = self._draw(generator)
        hard = torch.empty(0, dtype=torch.int64) if hard_BH is None else hard_BH[hard_BH >= 0]
        row_M = torch.unique(torch.cat([row_B, drawn, hard]))
        positive_B = torch.searchsorted(row_M, row_B)
        if self.frequency is not None:
            self.frequency.observe(row_B)
        sources = self._sources(row_M, row_B, drawn)
        easy_M = sources.drawn_M | sources.batch_M if self.in_batch else sources.drawn_M
        hard_BM = _marked(row_M, hard_BH, len(row_B))
        easy_times_M = sources.drawn_times_M + (sources.batch_times_M if self.in_batch else 0.0)
        expected_M = torch.where(sources.drawn_M | sources.batch_M, easy_times_M, 1.0)
        masked_BM = _own_positives(positive_B, owner_B, len(row_M))
        if self.shared_p_N is not None and hard_BH is not None:
            expected_M = easy_times_M + hard_BH.numel() * self.shared_p_N[row_M]
            easy_M |= torch.isin(row_M, hard)
            masked_BM, hard_BM = masked_BM | hard_BM, torch.zeros_like(hard_BM)
        return Sampled(
            row_M=row_M,
            log_q_M=expected_M.clamp(min=1e-9).log().to(torch.float32),
            positive_B=positive_B,
            masked_BM=masked_BM | ~(easy_M | hard_BM),
            hard_BM=hard_BM,
            by_source=sources,
        )

    def _sources(self, row_M: Tensor, row_B: Tensor, drawn: Tensor) -> Sources:
        if self.frequency is not None:
            batch_times_M = self.frequency.chance(row_M)
        else:
            batch_times_M = len(row_B) * self.batch_p_N[row_M]
        return Sources(
            drawn_M=torch.isin(row_M, drawn),
            batch_M=torch.isin(row_M, row_B),
            drawn_times_M=self.drawn * self.drawn_p_N[row_M],
            batch_times_M=batch_times_M,
        )

    def _draw(self, generator: torch.Generator) -> Tensor:
        if not self.drawn:
            return torch.empty(0, dtype=torch.int64)
        return torch.multinomial(self.drawn_p_N, self.drawn, replacement=True, generator=generator)


def hardest(logit_BM: Tensor, masked_BM: Tensor, count: int) -> Tensor:
    """Return [B, M]: False for each example's `count` unmasked items with the highest logits."""
    allowed_BM = logit_BM.detach().masked_fill(masked_BM, float("-inf"))
    best = allowed_BM.topk(min(count, allowed_BM.shape[1]), dim=1).indices
    return masked_BM | torch.ones_like(masked_BM).scatter(1, best, False)


def at_random(masked_BM: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return [B, M]: False for `count` unmasked items of each example."""
    return hardest(torch.rand(masked_BM.shape, generator=generator), masked_BM, count)


def _marked(row_M: Tensor, row_BH: Tensor | None, size: int) -> Tensor:
    """Return [B, M]: whether an item is one of the example's rows [B, H], -1 for none."""
    marked_BM = torch.zeros(size, len(row_M), dtype=torch.bool)
    if row_BH is not None:
        example, place = (row_BH >= 0).nonzero(as_tuple=True)
        marked_BM[example, torch.searchsorted(row_M, row_BH[example, place])] = True
    return marked_BM


def _own_positives(positive_B: Tensor, owner_B: Tensor, items: int) -> Tensor:
    """Return [B, M]: whether an item is a positive of an example with the same owner, or its own."""
    same_BB = (owner_B.unsqueeze(1) == owner_B) & (owner_B >= 0)
    same_BB |= torch.eye(len(owner_B), dtype=torch.bool)
    example, other = same_BB.nonzero(as_tuple=True)
    masked_BM = torch.zeros(len(positive_B), items, dtype=torch.bool)
    masked_BM[example, positive_B[other]] = True
    return masked_BM
