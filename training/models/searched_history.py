"""Finds for each candidate the few events of a long history that are about it, and attends to those.

Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data" (CIKM 2020, arXiv
2006.05639): the general search takes the newest events of the candidate's category (hard) or those of the
nearest items (soft), section 3.2; the exact search attends to them with bucketed time gaps (section 3.3).
Vectors of events hold their age's bucket already.

The hard search sorts a history by category once a request, whatever the number of candidates.

Legend: B = requests, C = candidates, L = events, newest last, F = events found, D = width, G = categories.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.history import weights_beside

HistorySearch = Literal["hard", "soft"]


def newest_of_category(
    category_BL: Tensor, present_BL: Tensor, asked_BC: Tensor, categories: int, found: int
) -> tuple[Tensor, Tensor]:
    """Return places [B, C, F] of the newest events of each candidate's category and which are there.

    Categories are ids below `categories`; 0 is unknown and finds nothing.
    """
    length = category_BL.shape[1]
    category_BL = category_BL.masked_fill(~present_BL, 0)
    place_L = torch.arange(length, device=category_BL.device)
    order_BL = (category_BL * length + place_L).argsort(dim=1)
    count_BG = category_BL.new_zeros(len(category_BL), categories)
    count_BG = count_BG.scatter_add(1, category_BL, torch.ones_like(category_BL))
    # A category's events lie in the order behind those of lower ones, the newest last.
    until_BC = count_BG.cumsum(dim=1).gather(1, asked_BC)
    at_BCF = until_BC.unsqueeze(2) - 1 - torch.arange(found, device=category_BL.device)
    from_BC = until_BC - count_BG.gather(1, asked_BC)
    there_BCF = (at_BCF >= from_BC.unsqueeze(2)) & (asked_BC > 0).unsqueeze(2)
    flat = order_BL.gather(1, at_BCF.clamp(min=0).flatten(1))
    return flat.reshape(at_BCF.shape), there_BCF


def nearest_events(
    item_BCD: Tensor, event_BLD: Tensor, present_BL: Tensor, found: int
) -> tuple[Tensor, Tensor]:
    """Return places [B, C, F] of the events with the highest inner product and which are there."""
    score_BCL = item_BCD @ event_BLD.transpose(1, 2)
    score_BCL = score_BCL.masked_fill(~present_BL.unsqueeze(1), float("-inf"))
    best = score_BCL.topk(min(found, event_BLD.shape[1]), dim=2)
    return best.indices, best.values > float("-inf")


class SearchedPool(nn.Module):
    """Searches a history for each candidate, and pools what is found by attention."""

    def __init__(self, width: int, search: HistorySearch, found: int, *, categories: int = 0) -> None:
        """Know ids of categories below `categories`, for the hard search."""
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.nothing = nn.Parameter(torch.zeros(()))
        self.search, self.found, self.categories = search, found, categories

    def forward(
        self,
        item_BCD: Tensor,
        event_BLD: Tensor,
        present_BL: Tensor,
        *,
        asked_BC: Tensor | None = None,
        category_BL: Tensor | None = None,
    ) -> Tensor:
        """Return the pooled events [B, C, D]; a zero event takes what matches nothing.

        Categories of candidates [B, C] and events [B, L] are for the hard search alone.
        """
        if self.search == "hard":
            assert asked_BC is not None
            assert category_BL is not None
            place_BCF, there_BCF = newest_of_category(
                category_BL, present_BL, asked_BC, self.categories, self.found
            )
        else:
            place_BCF, there_BCF = nearest_events(item_BCD, event_BLD, present_BL, self.found)
        event_BCFD = _events_at(event_BLD, place_BCF)
        logit_BCF: Tensor = (event_BCFD @ self.query(item_BCD).unsqueeze(-1)).squeeze(-1) * event_BLD.shape[
            -1
        ] ** -0.5
        logit_BCF = logit_BCF.masked_fill(~there_BCF, float("-inf"))
        weight_BCF = weights_beside(self.nothing, logit_BCF)
        return (weight_BCF.unsqueeze(2) @ event_BCFD).squeeze(2)


def _events_at(event_BLD: Tensor, place_BCF: Tensor) -> Tensor:
    """Return the events [B, C, F, D] at the places of each history, whole rows at a time."""
    size, length, width = event_BLD.shape
    first_B = torch.arange(size, device=event_BLD.device) * length
    row_BCF = place_BCF + first_B.reshape(-1, 1, 1)
    return F.embedding(row_BCF, event_BLD.reshape(-1, width))
