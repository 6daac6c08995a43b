"""GLMix: a generalised linear model with a fixed effect and random effects of every user and every item.

Zhang et al., "GLMix: Generalized Linear Mixed Models For Large-Scale Response Prediction" (KDD 2016):
`logit = f_global(x_u, x_i) + f_u(x_i) + f_i(x_u)`. The fixed effect is linear in what users and items are
like, in pairs of both and in cross features; a random effect is a vector of coefficients that one user has
for items, or one item for users. Whoever is unknown has the fixed effect alone. `training.glmix` fits it.

Legend: B = requests, C = candidates, N = items, M = rows of a table, U = numbers of a user, I = of an item,
K = cross features, D = width of an item's vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.fields import Field, ModelInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class GLMixConfig:
    """Which inputs say who the user and what the item is; all others describe them."""

    user: str = "user_id"
    item: str = "item_row"


class IndicatorEncoder(nn.Module):
    """Turns fields into plain numbers: an indicator for each id of a category or a bag, a number as it is.

    Id 0, which is unknown or padding, has no indicator.
    """

    def __init__(self, fields: tuple[Field, ...], tables: Mapping[str, int]) -> None:
        super().__init__()
        self.fields = fields
        self.widths = tuple(1 if field.kind == "number" else tables[field.table] - 1 for field in fields)
        self.out_width = sum(self.widths)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers [B, W] of features [B] or [B, L]."""
        fields = zip(self.fields, self.widths, strict=True)
        return torch.cat([_numbers(inputs[field.name], field, width) for field, width in fields], dim=-1)


def _numbers(value: Tensor, field: Field, width: int) -> Tensor:
    if field.kind == "number":
        return value.unsqueeze(-1)
    held = value.unsqueeze(-1) == torch.arange(1, width + 1, device=value.device)
    return (held.any(dim=-2) if field.kind == "bag" else held).to(torch.float32)


class GLMix(nn.Module):
    """Adds up the three effects; every coefficient begins at zero."""

    def __init__(self, config: GLMixConfig, inputs: ModelInputs) -> None:
        super().__init__()
        user, item = _id_field(inputs.request, config.user), _id_field(inputs.item, config.item)
        self.user, self.item = user.name, item.name
        self.request_numbers = IndicatorEncoder(_but(inputs.request, user), inputs.tables)
        self.item_numbers = IndicatorEncoder(_but(inputs.item, item), inputs.tables)
        user_width, item_width = self.request_numbers.out_width, self.item_numbers.out_width
        cross_width = len(inputs.cross)
        self.bias = nn.Parameter(torch.zeros(1))
        self.user_weight_U = nn.Parameter(torch.zeros(user_width))
        self.item_weight_I = nn.Parameter(torch.zeros(item_width))
        self.cross_weight_K = nn.Parameter(torch.zeros(cross_width))
        self.pair_weight_UI = nn.Parameter(torch.zeros(user_width, item_width))
        users, items = inputs.tables[user.table], inputs.tables[item.table]
        self.user_effect_MF = nn.Parameter(torch.zeros(users, 1 + item_width + cross_width))
        self.item_effect_MF = nn.Parameter(torch.zeros(items, 1 + user_width))

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return for each item its numbers and its random effect's coefficients [N, D], D = I + 1 + U."""
        return torch.cat([self.item_numbers(item), self.item_effect_MF[item[self.item]]], dim=-1)

    def score(self, request: Mapping[str, Tensor], item_BCD: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the logits [B, C, 1] of candidates with these item vectors and cross features."""
        user_BU = self.request_numbers(request)
        effect_BF = self.user_effect_MF[request[self.user]]
        width = self.item_numbers.out_width
        item_BCI, own_BCF = item_BCD[..., :width], item_BCD[..., width:]
        # What items are asked of a user is the same for all of them, so that a candidate costs a dot product.
        wanted_BI = self.item_weight_I + user_BU @ self.pair_weight_UI
        both_BCX = torch.cat([item_BCI, cross_BCK], dim=-1)
        coefficient_BX = torch.cat([wanted_BI, self.cross_weight_K.expand(len(user_BU), -1)], dim=-1)
        offset_B = self.bias + user_BU @ self.user_weight_U + effect_BF[:, 0]
        liking_BC = (both_BCX @ (coefficient_BX + effect_BF[:, 1:]).unsqueeze(-1)).squeeze(-1)
        liked_BC = own_BCF[..., 0] + (own_BCF[..., 1:] @ user_BU.unsqueeze(-1)).squeeze(-1)
        logit_BC1: Tensor = (offset_B.unsqueeze(-1) + liking_BC + liked_BC).unsqueeze(-1)
        return logit_BC1

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, 1] of the candidates at rows [B, C] of the items [N, …]."""
        return self.score(request, self.encode_item(item)[row_BC], cross_BCK)


def _id_field(fields: tuple[Field, ...], name: str) -> Field:
    found = next((field for field in fields if field.name == name and field.kind == "id"), None)
    if found is None:
        raise ValueError(f"{name!r}, whose random effects there shall be, is no id among the features")
    return found


def _but(fields: tuple[Field, ...], left_out: Field) -> tuple[Field, ...]:
    return tuple(field for field in fields if field is not left_out)
