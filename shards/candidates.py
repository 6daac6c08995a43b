"""Candidates column by column: what flows from stage to stage.

Legend: C = candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCORE = "score"
"""The column that a stage adds and by which it sorts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Items best first, with float32 columns [C] (NaN = no value) and text attributes of the first items.

    `columns` of a stage's answer hold "score" and, for ranking, one column per task. The cascade
    prefixes them when it passes them on: "lexical.score", "lexical.rank", "pre_rank.score".
    """

    item_ids: tuple[str, ...]
    columns: Mapping[str, Floats] = field(default_factory=dict)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if column.shape != (len(self.item_ids),):
                raise ValueError(f"column {name!r} has shape {column.shape}, not ({len(self.item_ids)},)")

    def __len__(self) -> int:
        return len(self.item_ids)

    def first(self, count: int) -> "Candidates":
        """Return the first candidates, at most `count` of them, without attributes."""
        return Candidates(
            item_ids=self.item_ids[:count],
            columns={name: column[:count] for name, column in self.columns.items()},
        )

    def take(self, order: NDArray[np.intp]) -> "Candidates":
        """Return the candidates at these positions, in this order, without attributes."""
        return Candidates(
            item_ids=tuple(map(self.item_ids.__getitem__, order.tolist())),
            columns={name: column[order] for name, column in self.columns.items()},
        )


EMPTY = Candidates(item_ids=())
