"""One layer of a transformer: self-attention and a perceptron, each behind a LayerNorm (PreNorm).

Vaswani et al., "Attention Is All You Need" (NIPS 2017, arXiv 1706.03762); the norms stand where Pancha et
al., "PinnerFormer" (KDD 2022, arXiv 2205.04507), have them.

Legend: B = sequences, S = places, W = places that are computed, D = width, H = heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HIDDEN = -1e9
"""The logit of what must not be looked at; finite, so that a place that may look at nothing has no NaN."""


class TransformerBlock(nn.Module):
    """Places that look at each other."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        """Make a layer; ValueError where `width` is no multiple of `heads`."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, and {width} is none of {heads}")
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSD: Tensor, hidden: Tensor, *, first: int | None = None) -> Tensor:
        """Return the `first` places, or all, [B, W, D], each having looked at what is not hidden from it.

        `hidden` is [W, S] for all alike, or [B, 1, 1, S].
        """
        x_BWD = x_BSD[:, :first]
        x_BWD = x_BWD + self.dropout(self._attend(self.attention_norm(x_BSD), hidden, first))
        out_BWD: Tensor = x_BWD + self.dropout(self.perceptron(self.perceptron_norm(x_BWD)))
        return out_BWD

    def _attend(self, x_BSD: Tensor, hidden: Tensor, first: int | None) -> Tensor:
        width = x_BSD.shape[-1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        asking_BWD = F.linear(x_BSD[:, :first], weight[:width], bias[:width])
        key_BSD, value_BSD = F.linear(x_BSD, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (self._by_head(part) for part in (asking_BWD, key_BSD, value_BSD))
        logit_BHWS = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        weight_BHWS = self.dropout(logit_BHWS.masked_fill(hidden, _HIDDEN).softmax(dim=-1))
        out_BWD: Tensor = self.attention_out((weight_BHWS @ value).transpose(1, 2).flatten(-2))
        return out_BWD

    def _by_head(self, x_BSD: Tensor) -> Tensor:
        return x_BSD.reshape(*x_BSD.shape[:-1], self.heads, -1).transpose(1, 2)


class TransformerPool(nn.Module):
    """Reads a sequence behind one place that asks; what becomes of that place is the answer."""

    def __init__(self, width: int, heads: int, *, layers: int = 1, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, asking_BD: Tensor, place_BSD: Tensor, present_BS: Tensor) -> Tensor:
        """Return [B, D]: what the asking place has read of the places that are present."""
        x_BSD = torch.cat([asking_BD.unsqueeze(1), place_BSD], dim=1)
        hidden_BS = F.pad(~present_BS, (1, 0), value=False)
        hidden_B11S = hidden_BS.unsqueeze(1).unsqueeze(1)
        for number, block in enumerate(self.blocks, start=1):
            # Nobody reads the other places of the last layer.
            x_BSD = block(x_BSD, hidden_B11S, first=1 if number == len(self.blocks) else None)
        out_BD: Tensor = self.norm(x_BSD[:, 0])
        return out_BD
