"""The blocks of rankers that benchmarks compare: what each changes in the settings of a plain one."""

from collections.abc import Mapping
from typing import Any

BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "MMoE, attention": {},
    "shared bottom": {"sharing": "bottom"},
    "MMoE, mean of the history": {"history": "mean"},
    "MMoE, DIN": {"history": "activation"},
    "MMoE, SIM (soft)": {"history": "search", "search": "soft", "found": 20},
    "MMoE, DCN-V2": {"cross_layers": 2},
    "MMoE, DCN-V2, low rank": {"cross_layers": 2, "cross_rank": 16, "cross_experts": 2},
    "MMoE, SENet": {"field_crosses": "weighed"},
    "MMoE, FiBiNET": {"field_crosses": "both"},
    "MMoE, LHUC": {"user_gates": True},
}
