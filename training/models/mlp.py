"""A multilayer perceptron with layer normalisation."""

from collections.abc import Sequence

from torch import nn


def mlp(in_width: int, widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers of these widths, each but the last followed by LayerNorm, SiLU and dropout."""
    layers: list[nn.Module] = []
    for depth, width in enumerate(widths):
        layers.append(nn.Linear(in_width, width))
        if depth < len(widths) - 1:
            layers += [nn.LayerNorm(width), nn.SiLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        in_width = width
    return nn.Sequential(*layers)
