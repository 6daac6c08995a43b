"""A weighted sum of losses, one against the negatives of each source; weights shift while a model learns.

Jha et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833): uniform
negatives, those of the batch, and dynamic hard ones, the items of a step that the model itself ranks highest.
Uniform ones warm up alone; then weight goes over to the others in a line.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWeights:
    """What the loss against each source counts in the end."""

    uniform: float = 1.0
    """Against the items that were drawn."""
    in_batch: float = 1.0
    """Against the items of the batch."""
    hard: float = 1.0
    """Against the `hardest` of both, and what `hard` of the training finds."""
    hardest: int = 16
    warmup_epochs: float = 0.0
    """For so long all weight is on uniform negatives."""
    shift_epochs: float = 0.0
    """After that it takes so long, in a line, to come to the weights above."""

    def __post_init__(self) -> None:
        if min(self.uniform, self.in_batch, self.hard) < 0 or not self.total:
            raise ValueError("uniform, in_batch and hard must not be negative, nor all of them 0")
        if self.hardest < 1:
            raise ValueError("hardest must be at least 1")
        if self.warmup_epochs < 0 or self.shift_epochs < 0:
            raise ValueError("warmup_epochs and shift_epochs must not be negative")

    @property
    def total(self) -> float:
        """Return what all sources count together, at any time."""
        return self.uniform + self.in_batch + self.hard

    def at(self, epochs: float) -> tuple[float, float, float]:
        """Return the weights of uniform, in-batch and hard negatives after so many epochs."""
        since = epochs - self.warmup_epochs
        share = min(max(since / self.shift_epochs, 0.0), 1.0) if self.shift_epochs else float(since >= 0)
        uniform = (1.0 - share) * self.total + share * self.uniform
        return uniform, share * self.in_batch, share * self.hard


class SourceShift(nn.Module):
    """How far the weights have come; a buffer, so that checkpoints have it."""

    step: Tensor

    def __init__(self, weights: SourceWeights, steps_per_epoch: int) -> None:
        super().__init__()
        self.weights = weights
        self.steps_per_epoch = steps_per_epoch
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def advance(self) -> tuple[float, float, float]:
        """Return the weights of a step, and count it."""
        weights = self.weights.at(int(self.step) / self.steps_per_epoch)
        self.step += 1
        return weights
