"""Several two-tower models as one: their vectors weighted and concatenated, so that one index serves all.

Huang et al., "Embedding-based Retrieval in Facebook Search" (KDD 2020, arXiv 2006.11632, section 6.2): with
E_Q = (a_i V_i / |V_i|) and E_D = (U_i / |U_i|) the cosine of E_Q and E_D is the sum of a_i cos(V_i, U_i),
divided by sqrt(sum a_i^2) sqrt(n).

Legend: B = requests, N = items, D = width of all models together.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.two_tower import TwoTower


class Ensemble(nn.Module):
    """Models over the same inputs; unweighted, their unit vectors stand side by side, for a cascade."""

    def __init__(
        self, members: Sequence[TwoTower], weights: Sequence[float], *, weighted: bool = True
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weighted = weighted
        self.weights = tuple(weight / math.hypot(*weights) for weight in weights)

    @property
    def first_width(self) -> int:
        """Return the width of the first model's vectors."""
        return self._members()[0].width

    def encode_query(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return query vectors [B, D], of unit length where they are weighted."""
        vectors = [F.normalize(member.encode_query(request), dim=-1) for member in self._members()]
        if not self.weighted:
            return torch.cat(vectors, dim=-1)
        parts = [weight * vector for weight, vector in zip(self.weights, vectors, strict=True)]
        return torch.cat(parts, dim=-1)

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return item vectors [N, D], of unit length where they are weighted."""
        vectors = [F.normalize(member.encode_item(item), dim=-1) for member in self._members()]
        all_ND = torch.cat(vectors, dim=-1)
        return all_ND / len(vectors) ** 0.5 if self.weighted else all_ND

    def _members(self) -> list[TwoTower]:
        return [member for member in self.members if isinstance(member, TwoTower)]
