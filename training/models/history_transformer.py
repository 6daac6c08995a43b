"""A causal transformer over what a user did, whose last output finds the items they may want next.

Pancha et al., "PinnerFormer: Sequence Modeling for User Representation at Pinterest" (KDD 2022, arXiv
2205.04507) for the PreNorm blocks, outputs of unit length and the learned temperature of at least 0.01;
Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018, arXiv 1808.09781) for training on the
next item. Items are their own vector plus the mean of their attributes' vectors.

Legend: B = users, L = events, S = L + 1 places, the first before any event, D = width, H = heads, N = items,
A = attributes of an item.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.transformer_block import TransformerBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTransformerConfig:
    """Sizes of the transformer."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    attribute_dropout: float = 0.0
    """How often, in training, an item is known by its id alone."""
    unit_length: bool = True
    """Whether vectors are compared by cosine over a learned temperature, or by inner product."""
    temperature: float = 0.05
    """Where the learned temperature starts."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        if not 0.01 <= self.temperature <= 1:
            raise ValueError("temperature must be between 0.01 and 1")


class HistoryTransformer(nn.Module):
    """Encodes a history at every place of it, and items into the same space."""

    attribute_NA: Tensor

    def __init__(
        self,
        config: HistoryTransformerConfig,
        *,
        history: str,
        item: str,
        max_len: int,
        attribute_NA: Tensor,
        attributes: int,
    ) -> None:
        """Know N items, each with attribute ids below `attributes`; 0 pads.

        `history` and `item` name the inputs that hold items by row + 1.
        """
        super().__init__()
        self.history, self.item, self.max_len = history, item, max_len
        self.config = config
        width = config.width
        # The rows of "no item" and of items, as histories name them.
        self.register_buffer("attribute_NA", F.pad(attribute_NA, (0, 0, 1, 0)), persistent=False)
        self.items = nn.Embedding(len(attribute_NA) + 1, width, padding_idx=0)
        self.attributes = nn.Embedding(attributes, width, padding_idx=0)
        self.places = nn.Embedding(max_len + 1, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, dropout=config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.apply(_initialise)
        with torch.no_grad():
            self.items.weight[0] = 0
            self.attributes.weight[0] = 0

    def item_vectors(self, item: Tensor) -> Tensor:
        """Return the input vectors […, D] of items by row + 1 […]; 0 for no item."""
        return F.embedding(item, self.items.weight, padding_idx=0) + self._attributes_of(item)

    def _attributes_of(self, item: Tensor) -> Tensor:
        ids = self.attribute_NA[item]
        if self.training and self.config.attribute_dropout:
            ids = ids * (torch.rand(item.shape).unsqueeze(-1) >= self.config.attribute_dropout)
        present = (ids > 0).to(self.attributes.weight.dtype).unsqueeze(-1)
        total = (F.embedding(ids, self.attributes.weight, padding_idx=0) * present).sum(dim=-2)
        return total / present.sum(dim=-2).clamp(min=1.0)

    def encode_places(self, item_BL: Tensor) -> Tensor:
        """Return a vector for each place [B, S, D]: s knows the first s events. 0 pads on the right."""
        x_BSD = F.pad(self.item_vectors(item_BL), (0, 0, 1, 0))
        places = x_BSD.shape[1]
        x_BSD = x_BSD * self.config.width**0.5 + self.places.weight[:places]
        x_BSD = self.dropout(x_BSD)
        number_S = torch.arange(places, device=item_BL.device)
        later_SS = number_S > number_S.unsqueeze(1)
        for block in self.blocks:
            x_BSD = block(x_BSD, later_SS)
        return self._scaled(self.norm(x_BSD))

    def encode_query(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return the vector [B, D] of the whole history."""
        item_BL = request[self.history]
        length_B = (item_BL > 0).sum(dim=1)
        at_B1D = length_B.reshape(-1, 1, 1).expand(-1, 1, self.config.width)
        return self.encode_places(item_BL).gather(1, at_B1D).squeeze(1)

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors [N, D] of items."""
        return self.encode_rows(item[self.item])

    def encode_rows(self, item_M: Tensor) -> Tensor:
        """Return the vectors [M, D] of items by row + 1."""
        return self._scaled(self.item_vectors(item_M))

    def temperature(self) -> Tensor:
        """Return what logits are divided by."""
        return self.log_temperature.exp().clamp(min=0.01) if self.config.unit_length else torch.tensor(1.0)

    def _scaled(self, vector: Tensor) -> Tensor:
        return F.normalize(vector, dim=-1) if self.config.unit_length else vector


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
