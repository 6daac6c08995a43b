"""Layers of nodes through which a query finds the paths that its items lie on.

Gao et al., "Deep Retrieval" (arXiv 2007.07203, section 2): p(path | query) is the product over the layers of
a softmax over K nodes, given the query and the nodes before; an item lies on J paths, and its probability is
the sum of theirs. `shards.path_index` computes the same, and searches it.

Legend: B = queries of a batch, D = width of a vector, L = layers, K = nodes of a layer, H = hidden width, J =
paths of an item, N = items.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shards.path_index import PathLayer, numbers_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PathModelConfig:
    """Sizes: layers of a path, nodes of a layer, paths of an item."""

    layers: int = 3
    nodes: int = 16
    paths: int = 3
    hidden: int = 64

    def __post_init__(self) -> None:
        if min(self.layers, self.paths, self.hidden) < 1 or self.nodes < 2:
            raise ValueError("layers, paths and hidden must be at least 1 and nodes at least 2")
        if self.paths > self.nodes**self.layers or self.nodes**self.layers >= 1 << 62:
            raise ValueError("there must be as many paths as an item has, and less than 2 ** 62")


class Layer(nn.Module):
    """A perceptron over the query and the nodes of the layers before."""

    def __init__(self, config: PathModelConfig, width: int, before: int) -> None:
        super().__init__()
        # Vectors of unit length would say little beside the nodes before.
        self.scale = width**0.5
        self.query = nn.Linear(width, config.hidden)
        self.before = nn.ParameterList(
            torch.randn(config.nodes, config.hidden) * config.hidden**-0.5 for _ in range(before)
        )
        self.out = nn.Linear(config.hidden, config.nodes)

    def forward(self, vector_BD: Tensor, node_BJL: Tensor) -> Tensor:
        """Return the log probabilities [B, J, K] of this layer's nodes behind paths so far."""
        hidden_BJH = self.query(vector_BD * self.scale).unsqueeze(1)
        for layer, before_KH in enumerate(self.before):
            hidden_BJH = hidden_BJH + F.embedding(node_BJL[..., layer], before_KH)
        return F.log_softmax(self.out(F.relu(hidden_BJH)), dim=-1)

    def arrays(self) -> PathLayer:
        """Return what a shard computes the same by."""
        nothing_KH = self.out.weight.new_zeros(0, self.out.in_features)
        shape = (len(self.before), self.out.out_features, self.out.in_features)
        return PathLayer(
            query_DH=_array(self.query.weight.T * self.scale),
            bias_H=_array(self.query.bias),
            before_LKH=_array(torch.cat([nothing_KH, *self.before])).reshape(shape),
            out_HK=_array(self.out.weight.T),
            out_bias_K=_array(self.out.bias),
        )


class PathModel(nn.Module):
    """The layers, and the paths that items lie on now."""

    node_NJL: Tensor
    """Kept with the parameters, which fit these paths and no others."""

    def __init__(
        self, config: PathModelConfig, *, width: int, items: int, generator: torch.Generator
    ) -> None:
        """Put items on paths at random, as the paper starts."""
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, width, before) for before in range(config.layers))
        shape = (items, config.paths, config.layers)
        self.register_buffer("node_NJL", torch.randint(config.nodes, shape, generator=generator))

    def forward(self, vector_BD: Tensor, row_B: Tensor) -> Tensor:
        """Return the log probability [B] of the paths that items by row lie on."""
        node_BJL = self.node_NJL[row_B]
        log_p_BJ = vector_BD.new_zeros(node_BJL.shape[:2])
        for number, layer in enumerate(self.layers):
            log_p_BJK = layer(vector_BD, node_BJL[..., :number]).expand(-1, node_BJL.shape[1], -1)
            log_p_BJ = log_p_BJ + log_p_BJK.gather(2, node_BJL[..., number].unsqueeze(2)).squeeze(2)
        return log_p_BJ.logsumexp(dim=1)

    def arrays(self) -> tuple[PathLayer, ...]:
        """Return the layers for `shards.path_index`."""
        return tuple(layer.arrays() for layer in self.layers if isinstance(layer, Layer))

    def path_numbers(self) -> np.typing.NDArray[np.int64]:
        """Return the numbers [N, J] of the paths that items lie on."""
        return numbers_of(self.node_NJL.numpy(), self.config.nodes)

    def place(self, path_NJ: np.typing.NDArray[np.int64]) -> None:
        """Put items on other paths, by number."""
        digits = self.config.nodes ** np.arange(self.config.layers - 1, -1, -1)
        self.node_NJL.copy_(torch.from_numpy(path_NJ[..., np.newaxis] // digits % self.config.nodes))


def _array(tensor: Tensor) -> np.typing.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
