"""Pools a history for each candidate by a small network that sees event and candidate together.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction" (KDD 2018, arXiv 1706.06978), section
4.3: a = NN(e, e - c, e ∘ c, c); the sum of a * e is not normalised, so that its length tells how strong the
interest is.

Legend: B = requests, C = candidates, L = events, D = width, H = hidden width of the network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ActivationPool(nn.Module):
    """The activation unit of DIN."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # The first layer's weights for e, c and e ∘ c; those for e - c are parts of the first two.
        self.event = nn.Linear(width, hidden, bias=False)
        self.candidate = nn.Linear(width, hidden)
        self.both_HD = nn.Parameter(torch.empty(hidden, width))
        nn.init.xavier_uniform_(self.both_HD)
        self.out = nn.Linear(hidden, 1)

    def forward(self, item_BCD: Tensor, event_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """Return the pooled events [B, C, D] for each candidate."""
        # both ∘ c once a candidate, so that e ∘ c [B, C, L, D] is never made.
        turned_BCHD = self.both_HD * item_BCD.unsqueeze(2)
        hidden_BCLH = event_BLD.unsqueeze(1) @ turned_BCHD.transpose(2, 3)
        hidden_BCLH = hidden_BCLH + self.event(event_BLD).unsqueeze(1)
        hidden_BCLH = hidden_BCLH + self.candidate(item_BCD).unsqueeze(2)
        weight_BCL: Tensor = self.out(F.silu(hidden_BCLH)).squeeze(-1)
        weight_BCL = weight_BCL.masked_fill(~present_BL.unsqueeze(1), 0.0)
        return weight_BCL @ event_BLD
