"""Hard positives: searches that fail count more often.

Huang et al., "Embedding-based Retrieval in Facebook Search" (KDD 2020, arXiv 2006.11632, section 6.1) mine
items that failed sessions were looking for and that retrieval did not find. Where no log tells which sessions
failed, they are the searches whose item the model itself does not rank among the first.

Legend: Q = requests.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class HardPositives:
    """Which searches fail, and how much oftener they train than others."""

    times: float = 1.0
    """How often a failed search is drawn for each time that another one is; with 1 all are alike."""
    beyond_rank: int = 100
    """A search fails whose item the model ranks further down; found anew at each epoch."""
    from_epoch: int = 2

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError("times must be at least 1")
        if self.beyond_rank < 1 or self.from_epoch < 1:
            raise ValueError("beyond_rank and from_epoch must be at least 1")


class FailedSearches(nn.Module):
    """What each request weighs in the epoch under way; buffers, so that checkpoints have it."""

    weight_Q: Tensor
    epoch: Tensor

    def __init__(self, config: HardPositives, requests: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("weight_Q", torch.ones(requests, dtype=torch.float64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def start_epoch(self, ranks: Callable[[], Tensor]) -> None:
        """Begin the next epoch; `ranks` gives the place [Q] of each request's item, 0 for the first."""
        self.epoch += 1
        if self.epoch >= self.config.from_epoch:
            failed_Q = ranks() >= self.config.beyond_rank
            self.weight_Q = 1.0 + (self.config.times - 1.0) * failed_Q.to(torch.float64)
