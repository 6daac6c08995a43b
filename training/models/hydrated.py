"""Towers whose vectors carry numbers: [p; f(p)] for items, [q; w] for queries.

Jha et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833).

Legend: B = requests, N = items, D = width of a vector, F = numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.history_transformer import HistoryTransformer
from training.models.prod2vec import Prod2Vec
from training.models.two_tower import TwoTower


@dataclass(frozen=True, slots=True, kw_only=True)
class Hydration:
    """Which numbers of the item table go behind vectors, and how their weights are found."""

    columns: tuple[str, ...] = ("popularity_30d",)
    k: int = 10
    """Recall among this many is what the weights are good for."""
    trials: int = 100

    def __post_init__(self) -> None:
        if not self.columns or self.k < 1 or self.trials < 1:
            raise ValueError("hydration needs columns, and k and trials of at least 1")


class Hydrated(nn.Module):
    """Towers whose vectors are longer by F."""

    weight_F: Tensor
    number_NF: Tensor

    def __init__(
        self, towers: TwoTower | HistoryTransformer | Prod2Vec, number_NF: Tensor, weight_F: Tensor
    ) -> None:
        super().__init__()
        self.towers = towers
        self.register_buffer("weight_F", weight_F)
        self.register_buffer("number_NF", number_NF, persistent=False)

    def encode_query(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return [q; w] of each request [B, D + F]."""
        vector_BD = self.towers.encode_query(request)
        return torch.cat([vector_BD, self.weight_F.expand(vector_BD.shape[0], -1)], dim=-1)

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return [p; f(p)] of all items [N, D + F]."""
        return torch.cat([self.towers.encode_item(item), self.number_NF], dim=-1)
