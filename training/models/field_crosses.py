"""Fields weighed by squeeze-and-excitation, and crossed in pairs by bilinear products.

Huang et al., "FiBiNET: Combining Feature Importance and Bilinear feature Interaction for Click-Through Rate
Prediction" (RecSys 2019, arXiv 1905.09433): SENet weighs fields by what they say together (section 3.3); the
pair (i, j) is v_i W ∘ v_j, with one W for all pairs, one for each left field, or one for each pair (section
3.4). Its products are Hadamard; inner ones sum them up. FiBiNET has both crosses: of the fields, and of the
weighed fields (section 3.5).

Legend: … = any leading dimensions, F = fields, P = pairs, D = width of a field, W = width of the crosses.
"""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FieldCrossing = Literal["none", "weighed", "bilinear", "both"]
"""Fields weighed (SENet), crossed in pairs, or crossed as they are and weighed (FiBiNET)."""

Matrices = Literal["shared", "each", "pair"]
"""One matrix of a bilinear cross for all pairs, one for each left field, or one for each pair."""

Product = Literal["hadamard", "inner"]


class SqueezeExcite(nn.Module):
    """Weighs each field by the means of all: A = relu(W_2 relu(W_1 z))."""

    def __init__(self, fields: int, reduction: int) -> None:
        super().__init__()
        hidden = max(fields // reduction, 1)
        self.squeeze = nn.Linear(fields, hidden)
        self.excite = nn.Linear(hidden, fields)
        # A field whose weight starts at zero would get no gradient: weights start around one.
        nn.init.ones_(self.excite.bias)

    def forward(self, field_FD: Tensor) -> Tensor:
        """Return the weighed fields […, F, D]."""
        weight_F = F.relu(self.excite(F.relu(self.squeeze(field_FD.mean(dim=-1)))))
        return field_FD * weight_F.unsqueeze(-1)


class BilinearCross(nn.Module):
    """Crosses every pair of fields: v_i W ∘ v_j."""

    left_P: Tensor
    right_P: Tensor

    def __init__(self, fields: int, width: int, *, matrices: Matrices, product: Product) -> None:
        super().__init__()
        pairs = torch.tensor(list(itertools.combinations(range(fields), 2)))
        self.register_buffer("left_P", pairs[:, 0].clone(), persistent=False)
        self.register_buffer("right_P", pairs[:, 1].clone(), persistent=False)
        count = {"shared": 1, "each": fields, "pair": len(pairs)}[matrices]
        self.weight = nn.Parameter(torch.empty(count, width, width))
        for matrix in self.weight.detach():
            nn.init.xavier_uniform_(matrix)
        self.matrices, self.product = matrices, product
        self.out_width = len(pairs) * (width if product == "hadamard" else 1)

    def forward(self, field_FD: Tensor) -> Tensor:
        """Return the crosses of all pairs […, W]."""
        right_PD = field_FD[..., self.right_P, :]
        if self.matrices == "pair":
            left_PD = (field_FD[..., self.left_P, :].unsqueeze(-2) @ self.weight).squeeze(-2)
        else:
            # With one matrix for each left field, a field is turned once and not once a pair.
            left_PD = (field_FD.unsqueeze(-2) @ self.weight).squeeze(-2)[..., self.left_P, :]
        crossed_PD = left_PD * right_PD
        return crossed_PD.flatten(-2) if self.product == "hadamard" else crossed_PD.sum(dim=-1)


class FieldCrosses(nn.Module):
    """Weighs or crosses the fields of a request and an item."""

    def __init__(
        self,
        fields: int,
        width: int,
        crossing: FieldCrossing,
        *,
        matrices: Matrices = "shared",
        product: Product = "hadamard",
        reduction: int = 3,
    ) -> None:
        super().__init__()
        if fields < 2:
            raise ValueError("field_crosses are for two fields and more")
        self.weigh = SqueezeExcite(fields, reduction) if crossing in ("weighed", "both") else None
        count = {"weighed": 0, "bilinear": 1, "both": 2}[crossing]
        self.crosses = nn.ModuleList(
            BilinearCross(fields, width, matrices=matrices, product=product) for _ in range(count)
        )
        pairs = fields * (fields - 1) // 2
        crossed = count * pairs * (width if product == "hadamard" else 1)
        self.out_width = crossed or fields * width

    def forward(self, field_FD: Tensor) -> Tensor:
        """Return the weighed fields or the crosses […, W]."""
        weighed_FD = self.weigh(field_FD) if self.weigh is not None else field_FD
        if not len(self.crosses):
            return weighed_FD.flatten(-2)
        sides = (field_FD, weighed_FD)
        return torch.cat([cross(side) for cross, side in zip(self.crosses, sides, strict=False)], dim=-1)
