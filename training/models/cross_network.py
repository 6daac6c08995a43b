"""Crosses of bounded degree between all inputs of a model.

Wang et al., "DCN V2: Improved Deep & Cross Network" (WWW 2021, arXiv 2008.13535): layer l makes
x_{l+1} = x_0 * (W x_l + b) + x_l (equation 1). With a rank, W is a gated sum of experts of low rank (equation
4): x_{l+1} = x_0 * (sum_i G_i(x_l) U_i g(C_i g(V_i^T x_l)) + b) + x_l, g = tanh.

Legend: … = any leading dimensions, W = width of the input, R = rank, E = experts.
"""

import torch
from torch import Tensor, nn


class CrossNetwork(nn.Module):
    """A stack of crosses with x_0, as wide as what goes in."""

    def __init__(self, width: int, layers: int, *, rank: int = 0, experts: int = 1) -> None:
        """Take full matrices with rank 0; ValueError for several experts without a rank."""
        super().__init__()
        if rank == 0 and experts > 1:
            raise ValueError("experts of a cross network need a rank")
        self.layers = nn.ModuleList(
            LowRankExperts(width, rank, experts) if rank else nn.Linear(width, width) for _ in range(layers)
        )

    def forward(self, x_W: Tensor) -> Tensor:
        """Return the crossed input […, W]."""
        crossed_W = x_W
        for layer in self.layers:
            crossed_W = x_W * layer(crossed_W) + crossed_W
        return crossed_W


class LowRankExperts(nn.Module):
    """A matrix in place of W of a layer: a gated sum of matrices of low rank."""

    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.down_EWR = nn.Parameter(torch.empty(experts, width, rank))
        self.within_ERR = nn.Parameter(torch.empty(experts, rank, rank))
        self.up_ERW = nn.Parameter(torch.empty(experts, rank, width))
        for weight in (self.down_EWR, self.within_ERR, self.up_ERW):
            for matrix in weight.detach():
                nn.init.xavier_uniform_(matrix)
        self.bias_W = nn.Parameter(torch.zeros(width))
        self.gate = nn.Linear(width, experts) if experts > 1 else None

    def forward(self, x_W: Tensor) -> Tensor:
        """Return the gated sum […, W]."""
        # One matrix product for all experts: their ranks stand beside each other.
        down_WER = self.down_EWR.transpose(0, 1).flatten(1)
        low_ER = (x_W @ down_WER).reshape(*x_W.shape[:-1], *self.within_ERR.shape[:2]).tanh()
        low_ER = (low_ER.unsqueeze(-2) @ self.within_ERR).squeeze(-2).tanh()
        if self.gate is not None:
            low_ER = low_ER * self.gate(x_W).softmax(dim=-1).unsqueeze(-1)
        raised_W: Tensor = low_ER.flatten(-2) @ self.up_ERW.flatten(0, 1) + self.bias_W
        return raised_W
