"""The blocks of rankers that benchmarks compare: what each changes in the settings of a plain one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from training.models.multi_task_ranker import MultiTaskRankerConfig

_PLAIN: Mapping[str, Any] = {
    "sharing": "bottom",
    "history": "attention",
    "cross_layers": 0,
    "cross_rank": 0,
    "cross_experts": 1,
    "field_crosses": "none",
    "user_gates": False,
}
_INNER = {"field_crosses": "both", "field_product": "inner"}
BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "shared bottom": {},
    "MMoE": {"sharing": "experts"},
    "mean of the history": {"history": "mean"},
    "DIN": {"history": "activation"},
    "SIM (soft)": {"history": "search", "search": "soft", "found": 20},
    "DCN-V2": {"cross_layers": 2},
    "DCN-V2, low rank": {"cross_layers": 2, "cross_rank": 16, "cross_experts": 2},
    "SENet": {"field_crosses": "weighed"},
    "FiBiNET": _INNER,
    "PPNet": {"user_gates": True},
}
"""The plain one is a shared bottom with dot-product attention over the history."""


def with_block(recipe: MultiTaskRankerConfig, changes: Mapping[str, Any]) -> MultiTaskRankerConfig:
    """Return a recipe's ranker with one block in the place of its own."""
    return replace(recipe, **{**_PLAIN, **changes})
