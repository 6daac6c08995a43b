"""Negatives for retrieval: the batch's own items plus drawn ones, with the log of how often each is met.

Mixed negative sampling (Yang et al., WWW Companion 2020) with logQ correction (Yi et al., RecSys 2019).

Legend: B = positives of a batch, M = distinct items that a batch scores, N = items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The items that one batch is scored against."""

    row_M: Tensor
    """Distinct item rows, ascending: the batch's positives and the drawn negatives."""
    log_q_M: Tensor
    """Log of the number of times a batch of this kind is expected to meet each item."""
    positive_B: Tensor
    """Position of each example's positive in `row_M`."""
    masked_BM: Tensor
    """True where an item must not count as a negative: a positive of the same owner in this batch."""


class MixedSampler:
    """Joins in-batch negatives with `drawn` ones from counts ** power: 0 uniform, 0.5 √, 0.75 popularity."""

    def __init__(self, count_N: Tensor, *, drawn: int, power: float = 0.0) -> None:
        if drawn < 0:
            raise ValueError(f"drawn must not be negative: {drawn}")
        count_N = count_N.to(torch.float64)
        self.drawn = drawn
        self.batch_p_N = count_N / count_N.sum().clamp(min=1.0)
        # Items never counted keep a share of the draws, or they would never be pushed away from a query.
        weight_N = count_N.clamp(min=1.0) ** power
        self.drawn_p_N = weight_N / weight_N.sum()

    def sample(self, row_B: Tensor, owner_B: Tensor, generator: torch.Generator) -> Sampled:
        """Return what the batch with these positive rows [B] is scored against.

        Examples with the same non-negative owner [B] mask each other's positives.
        """
        drawn = self._draw(generator)
        row_M = torch.unique(torch.cat([row_B, drawn]))
        positive_B = torch.searchsorted(row_M, row_B)
        expected_M = len(row_B) * self.batch_p_N[row_M] + self.drawn * self.drawn_p_N[row_M]
        return Sampled(
            row_M=row_M,
            log_q_M=expected_M.clamp(min=1e-9).log().to(torch.float32),
            positive_B=positive_B,
            masked_BM=_own_positives(positive_B, owner_B, len(row_M)),
        )

    def _draw(self, generator: torch.Generator) -> Tensor:
        if not self.drawn:
            return torch.empty(0, dtype=torch.int64)
        return torch.multinomial(self.drawn_p_N, self.drawn, replacement=True, generator=generator)


def _own_positives(positive_B: Tensor, owner_B: Tensor, items: int) -> Tensor:
    """Return [B, M]: whether an item is a positive of an example with the same owner, or its own."""
    same_BB = (owner_B.unsqueeze(1) == owner_B) & (owner_B >= 0)
    same_BB |= torch.eye(len(owner_B), dtype=torch.bool)
    example, other = same_BB.nonzero(as_tuple=True)
    masked_BM = torch.zeros(len(positive_B), items, dtype=torch.bool)
    masked_BM[example, positive_B[other]] = True
    return masked_BM
