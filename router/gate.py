"""The query-selection gate: whether embedding retrieval is worth running for a search.

Pure. Rules come first; where none applies the release's model decides, if its mode says so and it was read.
"""

import math
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

from shards.candidates import Candidates
from shards.gate_features import SearchFacts
from shards.gate_model import GateModel
from shards.release import GateRules
from shards.search_context import SearchContext

_SEEN_TAKES = 3.0
"""Takes after a query, decayed, from which on its log says what it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """What the gate decided, and why as a stable word.

    Reasons that open it: "always", "allowed", "no_query", "gain_likely", "default_open", "no_model". Reasons
    that close it: "never", "blocked", "exact_id", "navigational", "refinding", "too_short", "gain_unlikely",
    "gain_unknown". `probability` is the expected gain, None without a model; `threshold` the probability from
    which on the model opens the gate, None where it did not decide. `version` is that of the model, else of
    the rules.
    """

    open: bool
    reason: str
    probability: float | None = None
    threshold: float | None = None
    version: str


def decide(
    rules: GateRules,
    context: SearchContext,
    *,
    model: GateModel | None = None,
    lexical: Candidates | None = None,
    closed_share: float | None = None,
) -> GateDecision:
    """Decide whether the gated channels run. The first rule that applies decides; block beats allow.

    `model` is that of the rules, None where it was not read. `lexical` is what the model's channel found, for
    the mode "after". Of all searches the model keeps the `closed_share` with the least expected gain closed;
    None stands for what the target rate leaves.
    """
    facts = model.facts(context) if model else None
    verdict = _verdict(rules, context, facts)
    if model is None or facts is None:
        opened, reason = verdict or (True, "no_model" if rules.learned else "default_open")
        return GateDecision(open=opened, reason=reason, version=_prepared(rules).version)
    probability, quantile = model.expected_gain(facts, lexical)
    threshold = None
    if verdict is None and rules.learned:
        share = 1.0 - rules.target_rate if closed_share is None else closed_share
        threshold = model.threshold(share, after=lexical is not None)
        verdict = _by_gain(quantile, share)
    opened, reason = verdict or (True, "default_open")
    return GateDecision(
        open=opened,
        reason=reason,
        probability=None if math.isnan(probability) else probability,
        threshold=threshold,
        version=str(model.version),
    )


def waits_for_lexical(rules: GateRules, context: SearchContext, model: GateModel | None) -> bool:
    """Return whether the decision needs what the lexical channel finds."""
    if rules.mode != "after" or model is None:
        return False
    return _verdict(rules, context, model.facts(context)) is None


def _by_gain(quantile: float, closed_share: float) -> tuple[bool, str]:
    if math.isnan(quantile):
        return False, "gain_unknown"
    return (True, "gain_likely") if quantile >= closed_share else (False, "gain_unlikely")


def _verdict(rules: GateRules, context: SearchContext, facts: SearchFacts | None) -> tuple[bool, str] | None:
    """Return what the mode or the first rule that applies says; None where none does."""
    if rules.mode in ("always", "never"):
        return rules.mode == "always", rules.mode
    prepared, query = _prepared(rules), _normalised(context.query)
    if query in prepared.block:
        return False, "blocked"
    if query in prepared.allow:
        return True, "allowed"
    if not query:
        # Without words only embeddings and tables can answer.
        return True, "no_query"
    if prepared.item_id is not None and prepared.item_id.fullmatch(context.query.strip()):
        return False, "exact_id"
    if _is_navigational(rules, query, facts):
        return False, "navigational"
    if _is_refinding(rules, query, context, facts):
        return False, "refinding"
    if len(query) < rules.min_query_chars:
        return False, "too_short"
    return None


def _is_navigational(rules: GateRules, query: str, facts: SearchFacts | None) -> bool:
    """Return whether the query asks for one target: it is listed, or nearly all who asked took one item."""
    if query in _prepared(rules).navigational:
        return True
    if facts is None or not rules.navigational_share:
        return False
    return facts.query_takes >= _SEEN_TAKES and facts.top_share >= rules.navigational_share


def _is_refinding(rules: GateRules, query: str, context: SearchContext, facts: SearchFacts | None) -> bool:
    """Return whether the query is the id, or says most of the title, of an item that the user took before."""
    if any(query == item_id.casefold() for item_id in context.user.history.item_ids):
        return True
    return bool(facts and rules.refinding_cover and facts.title_cover >= rules.refinding_cover)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    item_id: re.Pattern[str] | None
    allow: frozenset[str]
    block: frozenset[str]
    navigational: frozenset[str]
    version: str


@lru_cache(maxsize=64)
def _prepared(rules: GateRules) -> _Prepared:
    return _Prepared(
        item_id=re.compile(rules.item_id_pattern, re.IGNORECASE) if rules.item_id_pattern else None,
        allow=frozenset(map(_normalised, rules.allow)),
        block=frozenset(map(_normalised, rules.block)),
        navigational=frozenset(map(_normalised, rules.navigational)),
        version=f"{rules.mode}-{zlib.crc32(repr(rules).encode()):08x}",
    )


def _normalised(query: str) -> str:
    return " ".join(query.casefold().split())
