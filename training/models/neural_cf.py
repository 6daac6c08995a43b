"""Neural collaborative filtering over rows: a user by what they took, an item by what is taken with it.

As LinkedIn Learning recommends courses ("A closer look at the AI behind course recommendations on LinkedIn
Learning", 2020): a tower over the user's row of the user-item matrix and one over the item's row of the
item-item matrix; the output is that of He et al., "Neural Collaborative Filtering" (WWW 2017, arXiv
1708.05031, section 3.2): a weighted sum of the products of both vectors' parts. Nothing is learned per user.

Legend: R = rows of a batch, E = entries of all rows, X = items scored for each row, H = hidden width, D =
width of a vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralCFConfig:
    """Sizes of the towers."""

    hidden: int = 128
    width: int = 64
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.width < 1 or not 0 <= self.dropout < 1:
            raise ValueError("hidden and width must be at least 1 and dropout a share below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Sparse rows over items, one after the other: row r starts at starts_R[r]."""

    starts_R: Tensor
    item_E: Tensor
    value_E: Tensor


class RowTower(nn.Module):
    """A perceptron whose first layer reads sparse rows."""

    def __init__(self, config: NeuralCFConfig, items: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(items, config.hidden) * config.hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.norm = nn.LayerNorm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, config.width)

    def forward(self, rows: Rows) -> Tensor:
        """Return a vector for each row [R, D]."""
        read_RH = F.embedding_bag(
            rows.item_E, self.weight, rows.starts_R, mode="sum", per_sample_weights=rows.value_E
        )
        hidden_RH = F.silu(self.norm(read_RH + self.bias))
        return self.out(self.dropout(hidden_RH))  # type: ignore[no-any-return]


class NeuralCF(nn.Module):
    """Two towers and the weights of their product."""

    def __init__(self, config: NeuralCFConfig, items: int) -> None:
        super().__init__()
        self.user_tower = RowTower(config, items)
        self.item_tower = RowTower(config, items)
        self.product = nn.Parameter(torch.full((config.width,), config.width**-0.5))
        self.item_bias = nn.Linear(config.width, 1)

    def forward(self, user_RD: Tensor, item_RXD: Tensor) -> Tensor:
        """Return the logits [R, X] that a user takes each of X items."""
        match_RX = ((user_RD * self.product).unsqueeze(1) * item_RXD).sum(dim=-1)
        logit_RX: Tensor = match_RX + self.item_bias(item_RXD).squeeze(-1)
        return logit_RX

    def score_all(self, user_RD: Tensor, item_ND: Tensor) -> Tensor:
        """Return the logits [R, N] of every item."""
        logit_RN: Tensor = (user_RD * self.product) @ item_ND.T + self.item_bias(item_ND).squeeze(-1)
        return logit_RN
