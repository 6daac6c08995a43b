"""Numbers of any scale are brought to deviations from their mean, and what is far out is drawn in."""

import torch

from training.models.feature_scale import LARGEST, FeatureScale


def taught() -> FeatureScale:
    """Return what has met a column around 100 and one of zeros and ones."""
    scale = FeatureScale(2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        x_BCK = torch.rand((8, 16, 2), generator=generator)
        scale(torch.stack([100 + 20 * x_BCK[..., 0], x_BCK[..., 1].round()], dim=-1))
    return scale.eval()


def test_what_training_met_is_scaled_as_batch_normalisation_does() -> None:
    x_K = torch.tensor([[110.0, 1.0], [120.0, 0.0]])
    mean_K, deviation_K = torch.tensor([110.0, 0.5]), torch.tensor([20 / 12**0.5, 0.5])
    torch.testing.assert_close(taught()(x_K), (x_K - mean_K) / deviation_K, rtol=0.05, atol=0.05)


def test_what_lies_far_out_counts_as_the_farthest_known() -> None:
    scaled_K = taught()(torch.tensor([1e6, -1e6]))
    assert scaled_K.tolist() == [LARGEST, -LARGEST]


def test_nothing_is_scaled_where_there_are_no_features() -> None:
    assert FeatureScale(0)(torch.zeros(3, 0)).shape == (3, 0)
