"""What a cross feature is computed from, and what computes it.

Legend: C = candidates, G = features of a group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.column_encoder import Ids
from shards.history_rows import HistoryRows
from shards.search_context import SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossRequest:
    """What a cross feature may look at: `rows` [C] are the candidates' rows in the item table."""

    context: SearchContext
    history: HistoryRows
    rows: Ids
    candidates: Candidates


CrossEncoder = Callable[[CrossRequest], NDArray[np.floating[Any]]]
"""Gives one feature [C], or several [C, G]."""
