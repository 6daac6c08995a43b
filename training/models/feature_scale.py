"""Numbers of any scale brought to mean 0 and deviation 1, by what training meets of each.

Ioffe and Szegedy, "Batch Normalization" (ICML 2015, arXiv 1502.03167), without the scale and shift that it
learns. When serving, the averages over all batches of the training stand in for those of a batch. What
lies far out is drawn in: training knows too few of the busiest users to tell what their sums are worth.

Legend: … = any leading dimensions, K = features.
"""

from torch import Tensor, nn

LARGEST = 5.0
"""Deviations from the mean; what is further out counts as this."""


class FeatureScale(nn.Module):
    """Scales each feature; counts, scores and shares start as equals."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(features, affine=False, momentum=None) if features else None

    def forward(self, x_K: Tensor) -> Tensor:
        """Return the scaled features […, K]."""
        if self.scale is None:
            return x_K
        scaled_K: Tensor = self.scale(x_K.reshape(-1, x_K.shape[-1])).reshape(x_K.shape)
        return scaled_K.clamp(-LARGEST, LARGEST)
