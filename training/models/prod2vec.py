"""Item vectors from sessions by a continuous bag of words over items (prod2vec), and maps of such spaces.

Grbovic et al., "E-commerce in Your Inbox: Product Recommendations at Scale" (KDD 2015, arXiv 1606.07154) for
items as words and sessions as sentences; Mikolov et al. (arXiv 1301.3781) for the continuous bag of words;
Bianchi et al., "Fantastic Embeddings and How to Align Them" (SIGIR eCom 2020, arXiv 2007.14906) for shops
whose spaces are aligned by a linear map.

Legend: B = targets of a batch, L = items of a context, M = items that are scored, N = items, D = width.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BagOfItems(nn.Module):
    """Predicts an item of a session by the mean of some others."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.context = nn.Embedding(items + 1, width, padding_idx=0)
        self.target = nn.Embedding(items, width)
        with torch.no_grad():
            self.context.weight.mul_(width**-0.5)
            self.target.weight.zero_()

    def forward(self, context_BL: Tensor, row_M: Tensor) -> Tensor:
        """Return the logits [B, M] of items by row, given others by row + 1; 0 pads."""
        return mean_of_present(context_BL, self.context.weight) @ self.target(row_M).T  # type: ignore[no-any-return]


class SpaceMap(nn.Module):
    """A linear map from one shop's space into another's, learned with the temperature of its cosines."""

    def __init__(self, start_DD: Tensor, temperature: float = 0.1) -> None:
        super().__init__()
        self.weight_DD = nn.Parameter(start_DD.clone())
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, vector_BD: Tensor, item_MD: Tensor) -> Tensor:
        """Return the scaled cosines [B, M] of mapped vectors with items of the other space."""
        mapped_BD = F.normalize(vector_BD @ self.weight_DD, dim=-1)
        temperature = self.log_temperature.exp().clamp(min=0.01)
        return mapped_BD @ F.normalize(item_MD, dim=-1).T / temperature


class Prod2Vec(nn.Module):
    """Finished item vectors; a user is the mean of those that they met last."""

    vector_ND: Tensor

    def __init__(self, vector_ND: Tensor, *, history: str, item: str) -> None:
        """Know the unit vectors [N, D] of items; `history` and `item` name the inputs by row + 1."""
        super().__init__()
        self.history, self.item = history, item
        self.register_buffer("vector_ND", F.pad(vector_ND, (0, 0, 1, 0)))

    def encode_query(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return vectors [B, D] of unit length; zero where nothing was met."""
        return F.normalize(mean_of_present(request[self.history], self.vector_ND), dim=-1)

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors [N, D] of items."""
        return self.vector_ND[item[self.item]]


def mean_of_present(row_BL: Tensor, weight_ND: Tensor) -> Tensor:
    """Return the mean vector [B, D] of rows of a table, 0 padding."""
    present_BL1 = (row_BL > 0).to(weight_ND.dtype).unsqueeze(-1)
    total_BD = (F.embedding(row_BL, weight_ND, padding_idx=0) * present_BL1).sum(dim=1)
    return total_BD / present_BL1.sum(dim=1).clamp(min=1.0)
