import pytest

from router.gate import GateDecision, decide
from shards.release import GateRules
from shards.search_context import History, SearchContext, UserState

RULES = GateRules(
    item_id_pattern=r"\d{5}[a-z]?", allow=("Mug", "tv"), block=("Gift  Card", "tv"), min_query_chars=3
)
OWNER = UserState(user_id="u1", history=History(("POST", "85123A"), ("buy", "buy"), (1, 2)))


def decided(query: str, rules: GateRules = RULES, user: UserState = OWNER) -> GateDecision:
    return decide(rules, SearchContext(query=query, user=user, now_ms=5))


@pytest.mark.parametrize(
    ("query", "opened", "reason"),
    [
        ("red mug", True, "default_open"),
        (" MUG ", True, "allowed"),
        ("gift card", False, "blocked"),
        (" GIFT card", False, "blocked"),
        ("tv", False, "blocked"),
        ("", True, "no_query"),
        ("  ", True, "no_query"),
        ("85123a", False, "exact_id"),
        (" 85123A ", False, "exact_id"),
        ("85123a mug", True, "default_open"),
        ("post", False, "refinding"),
        ("ab", False, "too_short"),
        ("  ab  ", False, "too_short"),
        ("abc", True, "default_open"),
    ],
)
def test_the_first_rule_that_applies_decides(query: str, opened: bool, reason: str) -> None:
    decision = decided(query)
    assert (decision.open, decision.reason, decision.probability) == (opened, reason, None)


@pytest.mark.parametrize(("mode", "opened"), [("always", True), ("never", False)])
def test_a_mode_overrules_all_rules(mode: str, opened: bool) -> None:
    for query in ("gift card", "mug", "85123a", ""):
        decision = decided(query, GateRules(mode=mode, allow=("mug",), block=("gift card",)))
        assert (decision.open, decision.reason) == (opened, mode)


def test_nobody_refinds_what_they_never_had() -> None:
    assert decided("post", user=UserState()).reason == "default_open"


def test_without_a_pattern_no_query_is_an_exact_id() -> None:
    assert decided("85123b", GateRules()).reason == "default_open"


def test_the_version_names_the_rules() -> None:
    assert decided("a").version == decided("b").version
    assert decided("a").version != decided("a", GateRules()).version
