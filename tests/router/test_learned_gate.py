"""The gate with a model: rules first, then the expected gain, and what is said of both."""

from dataclasses import replace

import numpy as np
import pytest

from router.gate import GateDecision, decide, waits_for_lexical
from router.gatekeeper import Gatekeeper, Gatekeepers
from shards.candidates import EMPTY, Candidates
from shards.gate_features import BEFORE
from shards.gate_model import GateModel
from shards.release import GateRules, Release, ReleaseChannel
from shards.search_context import History, SearchContext, UserState
from tests.shards.gates import VERSION, gate_model, scorer

MODEL = gate_model()
"""Expects more the more words a query has: one half at two words."""
BEFORE_RULES = GateRules(mode="before", model=VERSION, target_rate=0.5, block=("gift card box",))
OWNER = UserState(user_id="u1", history=History(("c1",), ("click",), (1,)))


def decided(
    query: str,
    rules: GateRules = BEFORE_RULES,
    *,
    model: GateModel | None = MODEL,
    user: UserState = OWNER,
    lexical: Candidates | None = None,
    closed_share: float | None = None,
) -> GateDecision:
    context = SearchContext(query=query, user=user, now_ms=5)
    return decide(rules, context, model=model, lexical=lexical, closed_share=closed_share)


def test_the_model_decides_by_the_expected_gain() -> None:
    for query, opened, reason in (("mug", False, "gain_unlikely"), ("big red mug", True, "gain_likely")):
        decision = decided(query)
        assert (decision.open, decision.reason, decision.version) == (opened, reason, "gifts-gate@1")
        assert decision.probability is not None
        assert decision.threshold is not None
        assert decision.threshold == pytest.approx(0.5)
        assert (decision.probability >= decision.threshold) == opened


def test_a_rule_comes_before_the_model_and_still_tells_the_probability() -> None:
    decision = decided("gift card box")
    assert (decision.open, decision.reason, decision.threshold) == (False, "blocked", None)
    assert decision.probability is not None
    assert decision.version == "gifts-gate@1"


@pytest.mark.parametrize("mode", ["always", "never", "rules"])
def test_in_other_modes_the_model_only_tells_the_probability(mode: str) -> None:
    decision = decided("mug", replace(BEFORE_RULES, mode=mode))
    assert decision.open == (mode != "never")
    assert decision.reason == ("default_open" if mode == "rules" else mode)
    assert (decision.probability is not None, decision.threshold) == (True, None)


def test_without_its_model_the_rules_go_on_alone_and_say_so() -> None:
    decision = decided("mug", model=None)
    assert (decision.open, decision.reason, decision.probability) == (True, "no_model", None)
    assert decision.version.startswith("before-")
    assert decided("gift card box", model=None).reason == "blocked"


def test_the_target_rate_sets_the_threshold_unless_a_budget_does() -> None:
    assert decided("mug", replace(BEFORE_RULES, target_rate=1.0)).open
    assert not decided("big red mug", replace(BEFORE_RULES, target_rate=0.0)).open
    assert decided("mug", closed_share=0.1).open


@pytest.mark.parametrize("closed_share", [0.0, -5.0])
def test_a_probability_that_is_no_number_never_opens_the_gate(closed_share: float) -> None:
    broken = scorer(BEFORE, "words")
    object.__setattr__(broken, "out_bias", np.array(np.nan, np.float32))
    decision = decided("mug", model=replace(MODEL, before=broken), closed_share=closed_share)
    assert (decision.open, decision.reason, decision.probability) == (False, "gain_unknown", None)


@pytest.mark.parametrize(
    ("query", "opened", "reason"),
    [
        ("candle holder", False, "refinding"),
        ("HOLDER candle", False, "refinding"),
        ("c1", False, "refinding"),
        ("candle", True, "default_open"),
        ("red mug", True, "default_open"),
        ("candle holder mug", True, "default_open"),
    ],
)
def test_words_that_mean_what_the_user_took_before_need_no_embedding(
    query: str, opened: bool, reason: str
) -> None:
    rules = GateRules(model=VERSION, refinding_cover=0.6)
    decision = decided(query, rules)
    assert (decision.open, decision.reason) == (opened, reason)
    assert decided(query, rules, user=UserState()).open
    assert decided(query, GateRules(model=VERSION)).reason == (
        "refinding" if query == "c1" else "default_open"
    )


def test_a_query_after_which_nearly_all_took_one_item_is_navigational() -> None:
    rules = GateRules(model=VERSION, navigational_share=0.8, navigational=("Opening  hours",))
    assert decided("red MUG", rules).reason == "navigational"
    assert decided("mug", rules).reason == "default_open", "three in ten took the same"
    assert decided("opening hours", rules).reason == "navigational"
    assert decided("opening hours", rules, model=None).reason == "navigational"
    assert decided("red mug", replace(rules, navigational_share=0.0)).reason == "default_open"


AFTER_RULES = replace(BEFORE_RULES, mode="after")


def test_after_lexical_retrieval_its_candidates_decide() -> None:
    some = Candidates(item_ids=("a", "b", "c"), columns={"score": np.ones(3, np.float32)})
    poor, rich = decided("mug", AFTER_RULES, lexical=EMPTY), decided("mug", AFTER_RULES, lexical=some)
    assert (poor.open, rich.open) == (True, False)
    assert decided("mug", AFTER_RULES).open is False, "without candidates it is decided as before them"


def test_only_where_no_rule_applies_lexical_retrieval_is_awaited() -> None:
    def waits(query: str, rules: GateRules = AFTER_RULES, model: GateModel | None = MODEL) -> bool:
        return waits_for_lexical(rules, SearchContext(query=query, now_ms=5), model)

    assert waits("mug")
    assert not waits("gift card box")
    assert not waits("")
    assert not waits("mug", BEFORE_RULES)
    assert not waits("mug", model=None)


def release(rules: GateRules, version: str = "1") -> Release:
    channel = ReleaseChannel(name="lexical", model=VERSION)
    return Release(surface="gifts", version=version, gate=rules, channels=(channel,))


def test_a_budget_is_shared_by_the_searches_of_one_release_alone() -> None:
    keepers = Gatekeepers(lambda: 0.0)
    one = keepers.of(release(BEFORE_RULES), {VERSION: MODEL})
    for _ in range(50):
        assert one.decide(SearchContext(query="mug", now_ms=5)).version == "gifts-gate@1"
    again = keepers.of(release(BEFORE_RULES), {VERSION: MODEL})
    other = keepers.of(release(BEFORE_RULES, "2"), {VERSION: MODEL})
    assert one.budget is not None
    assert one.budget is again.budget
    assert other.budget is not None
    assert one.budget.closed_share < other.budget.closed_share == 0.5


def test_equal_searches_open_the_gate_at_the_target_rate() -> None:
    keeper = Gatekeepers(lambda: 0.0).of(release(BEFORE_RULES), {VERSION: MODEL})
    context = SearchContext(query="mug", now_ms=5)
    opened = [keeper.decide(context).open for _ in range(1000)]
    assert 0.4 < sum(opened) / 1000 < 0.6


@pytest.mark.parametrize("rules", [GateRules(), replace(BEFORE_RULES, mode="always")])
def test_rules_alone_have_no_budget(rules: GateRules) -> None:
    assert Gatekeepers(lambda: 0.0).of(release(rules), {VERSION: MODEL}).budget is None


def test_a_keeper_without_its_model_waits_for_nothing() -> None:
    keeper = Gatekeepers(lambda: 0.0).of(release(AFTER_RULES), {})
    assert keeper.awaited_channel(SearchContext(query="mug", now_ms=5)) is None
    assert keeper == Gatekeeper(rules=AFTER_RULES)
