"""One tower over the features of an item: items that are taken together lie near to each other.

With output "tanh" all numbers of a vector lie between -1 and 1, so that 128 times them are bytes (Avito's
item similarity); with "unit" vectors have length 1. Legend: N = items, D = width of a vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.fields import FieldEncoder, ModelInputs, embedding_tables
from training.models.two_tower import Tower, TwoTowerConfig

CODES = 128
"""What numbers of a tanh are multiplied by to be kept as int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTowerConfig:
    """Sizes of the tower; `output` is "unit" or "tanh"."""

    width: int = 64
    hidden: int = 128
    dropout: float = 0.1
    output: str = "unit"
    temperature: float = 0.07
    """Where the learned temperature starts."""

    def __post_init__(self) -> None:
        if self.output not in ("unit", "tanh"):
            raise ValueError(f"output must be unit or tanh, not {self.output!r}")
        if not self.temperature > 0:
            raise ValueError("temperature must be above 0")


class ItemTower(nn.Module):
    """Compares items by the inner product of their vectors over a learned temperature."""

    def __init__(self, config: ItemTowerConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config = config
        sizes = TwoTowerConfig(width=config.width, hidden=config.hidden, dropout=config.dropout)
        self.tables = embedding_tables(inputs.tables, config.width)
        self.tower = Tower(FieldEncoder(inputs.item, self.tables, config.width), 0, sizes)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def forward(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors of items [N, D]."""
        summed_ND = self.tower.summed(self.tower.encoder.parts(item))
        return F.normalize(summed_ND, dim=-1) if self.config.output == "unit" else summed_ND.tanh()

    def temperature(self) -> Tensor:
        """Return what inner products are divided by."""
        return self.log_temperature.exp().clamp(min=0.01)


def as_codes(vector_ND: Tensor) -> Tensor:
    """Return vectors of numbers between -1 and 1 as the whole numbers of int8 [N, D], still as floats."""
    return (vector_ND * CODES).round().clamp(-CODES, CODES - 1)
