"""The query-selection gate: whether embedding retrieval is worth running for a search.

Pure. Rules only in this version; a learned gate fills in `probability`.
"""

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

from shards.release import GateRules
from shards.search_context import SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """What the gate decided, and why as a stable word.

    Reasons that open it: "always", "allowed", "no_query", "default_open". Reasons that close it:
    "never", "blocked", "exact_id", "refinding", "too_short".
    """

    open: bool
    reason: str
    probability: float | None = None
    version: str


def decide(rules: GateRules, ctx: SearchContext) -> GateDecision:
    """Decide whether the gated channels run. The first rule that applies decides; block beats allow."""
    opened, reason = _verdict(rules, ctx)
    return GateDecision(open=opened, reason=reason, version=_prepared(rules).version)


def _verdict(rules: GateRules, ctx: SearchContext) -> tuple[bool, str]:
    if rules.mode != "rules":
        return rules.mode == "always", rules.mode
    return _rule_verdict(rules, _normalised(ctx.query), ctx)


def _rule_verdict(rules: GateRules, query: str, ctx: SearchContext) -> tuple[bool, str]:
    prepared = _prepared(rules)
    if query in prepared.block:
        return False, "blocked"
    if query in prepared.allow:
        return True, "allowed"
    if not query:
        # Without words only embeddings and tables can answer.
        return True, "no_query"
    if prepared.item_id is not None and prepared.item_id.fullmatch(ctx.query.strip()):
        return False, "exact_id"
    if any(query == item_id.casefold() for item_id in ctx.user.history.item_ids):
        return False, "refinding"
    if len(query) < rules.min_query_chars:
        return False, "too_short"
    return True, "default_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    item_id: re.Pattern[str] | None
    allow: frozenset[str]
    block: frozenset[str]
    version: str


@lru_cache(maxsize=64)
def _prepared(rules: GateRules) -> _Prepared:
    return _Prepared(
        item_id=re.compile(rules.item_id_pattern, re.IGNORECASE) if rules.item_id_pattern else None,
        allow=frozenset(map(_normalised, rules.allow)),
        block=frozenset(map(_normalised, rules.block)),
        version=f"{rules.mode}-{zlib.crc32(repr(rules).encode()):08x}",
    )


def _normalised(query: str) -> str:
    return " ".join(query.casefold().split())
