"""Pools a user's newest events into one vector, by mean or by attention.

Attention pooling is single-head dot-product attention (Vaswani et al., 2017, arXiv 1706.03762) whose query
is the searcher's text or a candidate; `activation_pool` has the network of DIN.

Legend: B = requests, L = events, C = queries of the attention per request, D = width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.fields import Field, HistoryField, mean_of_bag, table_weight


class HistoryEncoder(nn.Module):
    """Vectors of a user's events: item plus age, and the mean token of what the item is called."""

    token_NT: Tensor

    def __init__(
        self,
        field: HistoryField,
        tables: nn.ModuleDict,
        width: int,
        *,
        text: Field | None = None,
        token_NT: Tensor | None = None,
    ) -> None:
        """Know the tokens of all items where a `text` is given, ids [N, T]; 0 pads."""
        super().__init__()
        assert (text is None) == (token_NT is None)
        self.text = text
        if token_NT is not None:
            # The row of "no item" comes first, as histories name items.
            self.register_buffer("token_NT", F.pad(token_NT, (0, 0, 1, 0)), persistent=False)
        self.field = field
        self.tables = tables
        self.ages = nn.Embedding(field.age_buckets, width, padding_idx=0)
        nn.init.normal_(self.ages.weight, std=0.02)

    def forward(self, request: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the events [B, L, D] and which of them are there [B, L]."""
        items_BL = request[self.field.items]
        item_BLD = F.embedding(items_BL, table_weight(self.tables, self.field.table), padding_idx=0)
        event_BLD = item_BLD + self.ages(request[self.field.ages])
        if self.text is not None:
            weight = table_weight(self.tables, self.text.table)
            event_BLD = event_BLD + mean_of_bag(self.token_NT[items_BL], weight)
        return event_BLD, items_BL > 0


def mean_pool(event_BLD: Tensor, present_BL: Tensor) -> Tensor:
    """Return the mean event [B, D]; zero where there is none."""
    weight_BL = present_BL.to(event_BLD.dtype)
    total_BD = (event_BLD * weight_BL.unsqueeze(-1)).sum(dim=1)
    return total_BD / weight_BL.sum(dim=1, keepdim=True).clamp(min=1.0)


class AttentionPool(nn.Module):
    """Weighs events by how well they match a query vector; a zero event takes what matches nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, query_BCD: Tensor, event_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """Return the pooled events [B, C, D] for each query vector."""
        width = event_BLD.shape[-1]
        logit_BCL = self.query(query_BCD) @ event_BLD.transpose(1, 2) * width**-0.5
        logit_BCL = logit_BCL.masked_fill(~present_BL.unsqueeze(1), float("-inf"))
        return weights_beside(self.nothing, logit_BCL) @ event_BLD


def weights_beside(nothing: Tensor, logit_BCL: Tensor) -> Tensor:
    """Return the softmax [B, C, L] of the events' logits beside that of an event that is not there."""
    nothing_BC1 = nothing.expand(*logit_BCL.shape[:2], 1)
    return torch.cat([logit_BCL, nothing_BC1], dim=-1).softmax(dim=-1)[..., :-1]
