"""Two views of an item, each without a part of what is known about it.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations" (CIKM 2021, arXiv 2007.12865,
section 3.3): of an item's features one view keeps some and the other those left out (complementary masking),
at random or so that features which tell the same are left out together (mutual information); then values of
features with several are dropped one by one (feature dropout).

Legend: N = items, M = items at once, L = values of a feature, F = features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.tensors import Tensors

MASKS = ("random", "complementary", "information", "dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfSupervised:
    """The contrastive loss of two views of an item, beside the loss of what was taken."""

    weight: float = 0.0
    """What it counts; 0 for none."""
    mask: str = "complementary"
    dropout: float = 0.2
    items: int = 256
    """Items drawn uniformly for each batch, so that those nobody took learn too."""
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"mask must be one of {', '.join(MASKS)}, not {self.mask!r}")
        if self.weight < 0 or not 0 <= self.dropout < 1 or self.items < 2 or self.temperature <= 0:
            raise ValueError(
                "weight must not be negative, dropout a share below 1, items 2 at least, temperature above 0"
            )


def contrastive_loss(one_MD: Tensor, other_MD: Tensor, temperature: float) -> Tensor:
    """Return the softmax loss of telling each item's other view from those of the other items (InfoNCE)."""
    logit_MM = one_MD @ other_MD.T / temperature
    return F.cross_entropy(logit_MM, torch.arange(len(one_MD)))


def views(
    item_M: Tensors,
    *,
    mask: str,
    dropout: float,
    related_FF: Tensor,
    generator: torch.Generator,
) -> tuple[Tensors, Tensors]:
    """Return two views of the items, 0 where a value is left out.

    "random" leaves out half of the features in each view for itself, "complementary" in the second view those
    that the first one has; "information" does so too, with a feature and its nearest by mutual information
    [F, F] in one view; "dropout" leaves out no feature. Values are dropped with the probability `dropout`.
    """
    names = sorted(item_M)
    hidden = _hidden(len(names), mask, related_FF, generator)
    first, second = (
        {
            name: _view(item_M[name], bool(out), dropout, generator)
            for name, out in zip(names, outs, strict=True)
        }
        for outs in hidden
    )
    return first, second


def _hidden(
    features: int, mask: str, related_FF: Tensor, generator: torch.Generator
) -> tuple[list[bool], list[bool]]:
    """Return which features each view leaves out."""
    half = features // 2
    if mask == "dropout" or not half:
        return [False] * features, [False] * features
    if mask == "information":
        seed = int(torch.randint(features, (1,), generator=generator))
        chosen = related_FF[seed].clone()
        chosen[seed] = torch.inf
        first = torch.zeros(features, dtype=torch.bool)
        first[chosen.topk(half).indices] = True
        return first.tolist(), (~first).tolist()
    out = [torch.randperm(features, generator=generator) < half for _ in range(2)]
    return out[0].tolist(), (~out[0] if mask == "complementary" else out[1]).tolist()


def _view(value: Tensor, hidden: bool, dropout: float, generator: torch.Generator) -> Tensor:
    if hidden:
        return torch.zeros_like(value)
    if value.ndim < 2 or not dropout:
        return value
    return value * (torch.rand(value.shape, generator=generator) >= dropout)


def mutual_information(item_N: Mapping[str, Tensor], *, buckets: int = 16) -> Tensor:
    """Return the mutual information [F, F] of each two features, in nats, by name; of a list its first value.

    Ids are hashed into buckets and numbers cut at their quantiles.
    """
    names = sorted(item_N)
    code_FN = [_code(item_N[name].numpy(), buckets) for name in names]
    related = [[_information(one, other, buckets) for other in code_FN] for one in code_FN]
    return torch.tensor(related)


def _code(value_N: NDArray[Any], buckets: int) -> NDArray[np.int64]:
    """Return a bucket of each item [N]."""
    first_N = value_N[:, 0] if value_N.ndim > 1 else value_N
    if np.issubdtype(first_N.dtype, np.floating):
        cuts = np.quantile(first_N, np.linspace(0, 1, buckets + 1)[1:-1])
        return np.searchsorted(cuts, first_N).astype(np.int64)
    return first_N.astype(np.int64) % buckets


def _information(one_N: NDArray[np.int64], other_N: NDArray[np.int64], buckets: int) -> float:
    joint = np.bincount(one_N * buckets + other_N, minlength=buckets**2).reshape(buckets, buckets)
    p = joint / joint.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    met = p > 0
    return float((p[met] * np.log(p[met] / independent[met])).sum())
