"""Aggregates an item's neighbours in the graph of queries, users and items.

Hamilton et al., "Inductive Representation Learning on Large Graphs" (GraphSAGE, NIPS 2017, arXiv 1706.02216):
the mean of the neighbours' vectors, of each kind of edge, through one layer. As in the listing tower of Jha
et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833), neighbours are
queries that led to the item, and items that the same users took.

Legend: N = items, D = width, K = kinds of neighbours.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.models.fields import FieldEncoder


class NeighbourEncoder(nn.Module):
    """One vector for an item's neighbourhood, zero where it has none."""

    def __init__(self, encoder: FieldEncoder, width: int, *, dropout: float) -> None:
        """Aggregate the encoder's bags; in training, `dropout` is how often an item is shown without any.

        Among the queries of an item are those that train: a tower that always sees them leans on them.
        """
        super().__init__()
        self.encoder = encoder
        self.dropout = dropout
        self.layer = nn.Linear(encoder.out_width, width)

    def forward(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return the neighbourhoods [N, D]."""
        mean_NW = self.encoder(item)
        known_N1 = mean_NW.abs().sum(dim=-1, keepdim=True) > 0
        if self.training and self.dropout:
            known_N1 = known_N1 & (torch.rand(len(mean_NW), 1) >= self.dropout)
        out_ND: Tensor = torch.relu(self.layer(mean_NW)) * known_N1
        return out_ND
