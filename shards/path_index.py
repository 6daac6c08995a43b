"""Paths to items: a search for the likeliest paths, layer after layer, and the items at their ends.

Gao et al., "Deep Retrieval: Learning A Retrievable Structure for Large-Scale Recommendations" (CIKM 2021,
arXiv 2007.07203): p(path | query) = product over layers of p(node | query, nodes before), each a perceptron
with one hidden layer and a softmax over K nodes; beam search keeps the likeliest after every layer. What a
perceptron reads of a node before is a row of a table: a concatenated node vector times its share of the
first matrix comes to the same.

Legend: Q = queries, D = width of a vector, L = layers, K = nodes of a layer, H = hidden width, P = paths of a
beam, C = paths that hold items, M = places of items on paths, N = items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats
from shards.errors import CorruptBundle, MismatchedBundle
from shards.grouped_rows import Ints, entries_of

PATHS_FILE = "paths.npz"

_LAYER_ARRAYS = ("query_DH", "bias_H", "before_LKH", "out_HK", "out_bias_K")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLayer:
    """The perceptron of a layer; `before_LKH` has what it reads of the nodes of each layer before it."""

    query_DH: Floats
    bias_H: Floats
    before_LKH: Floats
    out_HK: Floats
    out_bias_K: Floats

    def log_p(self, vector_QD: Floats, node_QPL: Ints) -> Floats:
        """Return the log probabilities [Q, P, K] of this layer's nodes behind each path so far."""
        hidden_QPH = (vector_QD @ self.query_DH + self.bias_H)[:, np.newaxis]
        for before_KH, node_QP in zip(self.before_LKH, np.moveaxis(node_QPL, -1, 0), strict=True):
            hidden_QPH = hidden_QPH + before_KH[node_QP]
        logit_QPK = np.maximum(hidden_QPH, 0.0) @ self.out_HK + self.out_bias_K
        logit_QPK -= logit_QPK.max(axis=-1, keepdims=True)
        return logit_QPK - np.log(np.exp(logit_QPK).sum(axis=-1, keepdims=True))  # type: ignore[no-any-return]


def likeliest(layers: Sequence[PathLayer], vector_QD: Floats, beam: int) -> tuple[Ints, Floats]:
    """Return the numbers [Q, P] of the `beam` likeliest paths and their log probabilities, best first.

    The number of a path is its nodes as digits to the base K.
    """
    queries = np.arange(len(vector_QD))[:, np.newaxis]
    node_QPL = np.zeros((len(vector_QD), 1, 0), np.int64)
    log_p_QP = np.zeros((len(vector_QD), 1), np.float32)
    for layer in layers:
        nodes = len(layer.out_bias_K)
        log_p_QX = (log_p_QP[..., np.newaxis] + layer.log_p(vector_QD, node_QPL)).reshape(len(queries), -1)
        best_QP = _best(log_p_QX, beam)
        log_p_QP = np.take_along_axis(log_p_QX, best_QP, axis=1)
        before_QP, node_QP = np.divmod(best_QP, nodes)
        node_QPL = np.concatenate([node_QPL[queries, before_QP], node_QP[..., np.newaxis]], axis=-1)
    return numbers_of(node_QPL, len(layers[0].out_bias_K)), log_p_QP


def numbers_of(node_XL: Ints, nodes: int) -> Ints:
    """Return the numbers [...] of paths by their nodes [..., L]."""
    number_X = np.zeros(node_XL.shape[:-1], np.int64)
    for node in np.moveaxis(node_XL, -1, 0):
        number_X = number_X * nodes + node
    return number_X


def _best(score_QX: Floats, keep: int) -> Ints:
    """Return where the best `keep` of each row are, best first."""
    if keep < score_QX.shape[1]:
        kept_QP = np.argpartition(-score_QX, keep - 1, axis=1)[:, :keep]
    else:
        kept_QP = np.broadcast_to(np.arange(score_QX.shape[1]), score_QX.shape)
    order_QP = np.argsort(-np.take_along_axis(score_QX, kept_QP, axis=1), axis=1, kind="stable")
    return np.take_along_axis(kept_QP, order_QP, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathIndex:
    """The layers, and the rows of items by path: path_C[c] holds those from starts[c] to starts[c + 1]."""

    layers: tuple[PathLayer, ...]
    path_C: Ints
    starts: Ints
    row_M: Ints

    @classmethod
    def of(cls, layers: Sequence[PathLayer], path_NJ: Ints) -> "PathIndex":
        """Return the index of items that lie on these paths each."""
        row_M = np.repeat(np.arange(len(path_NJ)), path_NJ.shape[1])
        # An item may be at two places of one path where it has found no other.
        pair_MX = np.unique(np.stack([path_NJ.ravel(), row_M], axis=1), axis=0)
        return cls._grouped(tuple(layers), pair_MX[:, 0], pair_MX[:, 1])

    @classmethod
    def _grouped(cls, layers: tuple[PathLayer, ...], path_M: Ints, row_M: Ints) -> "PathIndex":
        path_C, starts = np.unique(path_M, return_index=True)
        return cls(layers=layers, path_C=path_C, starts=np.append(starts, len(path_M)), row_M=row_M)

    @property
    def width(self) -> int:
        """Return D."""
        return len(self.layers[0].query_DH)

    def reached(self, vector_1D: Floats, beam: int) -> Ints:
        """Return the rows of the items on the likeliest paths, ascending."""
        path_P = likeliest(self.layers, vector_1D, beam)[0][0]
        at_P = np.minimum(np.searchsorted(self.path_C, path_P), len(self.path_C) - 1)
        entries, _ = entries_of(self.starts, at_P[self.path_C[at_P] == path_P])
        return np.unique(self.row_M[entries])

    def save(self, path: Path) -> None:
        """Write the file that `open` reads."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"{number}.{name}": getattr(layer, name)
            for number, layer in enumerate(self.layers)
            for name in _LAYER_ARRAYS
        }
        arrays["path_M"] = np.repeat(self.path_C, np.diff(self.starts))
        np.savez(path, row_M=self.row_M, **arrays)  # type: ignore[arg-type]

    @classmethod
    def open(cls, path: Path, items: int) -> "PathIndex":
        """Read an index of so many items; BundleError where the file is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            path_M, row_M = arrays.pop("path_M"), arrays.pop("row_M")
            layers = tuple(_layer(arrays, number) for number in range(len(arrays) // len(_LAYER_ARRAYS)))
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise CorruptBundle(path.name, f"cannot be read: {error}") from error
        if not layers or not len(path_M) or len(path_M) != len(row_M):
            raise MismatchedBundle(path.name, "holds no layers or no items on paths")
        if (np.diff(path_M) < 0).any() or row_M.min() < 0 or row_M.max() >= items:
            raise MismatchedBundle(path.name, f"has paths out of order or a row of none of {items} items")
        _check_layers(path, layers)
        return cls._grouped(layers, path_M, row_M)


def _layer(arrays: Mapping[str, Floats], number: int) -> PathLayer:
    return PathLayer(**{name: arrays[f"{number}.{name}"] for name in _LAYER_ARRAYS})


def _check_layers(path: Path, layers: Sequence[PathLayer]) -> None:
    """Refuse with MismatchedBundle layers that do not fit each other or hold what is no finite number."""
    nodes, width = len(layers[0].out_bias_K), len(layers[0].query_DH)
    for number, layer in enumerate(layers):
        hidden = len(layer.bias_H)
        shapes = ((width, hidden), (hidden,), (number, nodes, hidden), (hidden, nodes), (nodes,))
        for name, shape in zip(_LAYER_ARRAYS, shapes, strict=True):
            array = getattr(layer, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise MismatchedBundle(
                    path.name, f"has a {name} in layer {number} that is not finite {shape}"
                )
