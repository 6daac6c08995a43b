"""The gate's perceptron: one hidden layer over standardised features, small enough for numpy on a router.

Legend: B = searches of a batch, F = features, D = hidden width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from shards.gate_knowledge import Floats
from shards.gate_model import LARGEST, GateScorer


class GateNet(nn.Module):
    """Features to the logit of an expected gain."""

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, features_NF: Floats, hidden: int) -> None:
        """Standardise as the examples are spread; a feature that never varies counts as it is."""
        super().__init__()
        spread_F = features_NF.std(axis=0)
        self.register_buffer("mean_F", torch.from_numpy(features_NF.mean(axis=0)))
        self.register_buffer("scale_F", torch.from_numpy(np.where(spread_F > 1e-6, spread_F, 1.0)))
        self.hidden = nn.Linear(features_NF.shape[1], hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return logits [B]."""
        x_BF = torch.clamp((features_BF - self.mean_F) / self.scale_F, -LARGEST, LARGEST)
        logit_B: Tensor = self.out(torch.relu(self.hidden(x_BF)))[:, 0]
        return logit_B


def exported(net: GateNet, quantiles: Floats) -> GateScorer:
    """Return the arrays by which a router computes the same probabilities."""
    return GateScorer(
        mean_F=_array(net.mean_F),
        scale_F=_array(net.scale_F),
        hidden_FD=np.ascontiguousarray(_array(net.hidden.weight).T),
        hidden_bias_D=_array(net.hidden.bias),
        out_D=_array(net.out.weight)[0],
        out_bias=_array(net.out.bias)[0],
        quantiles=quantiles,
    )


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy().astype(np.float32)
