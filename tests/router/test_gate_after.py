"""A gate that waits for lexical retrieval: what is asked when, and what the decision goes by."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from router import cascade
from router.answer import Answer
from router.budget import Deadline
from router.coverage import GapReason
from router.gatekeeper import Gatekeeper
from router.search import Search
from services.codec import SearchRequest
from shards.candidates import Candidates
from shards.errors import HeadraceError, Unavailable
from shards.gate_features import AFTER
from shards.release import GateRules, Stage
from shards.search_context import SearchContext
from tests.router.memory_stages import MemoryStages, ranked
from tests.router.test_cascade import ANSWERS, RELEASE
from tests.shards.gates import VERSION, gate_model, scorer

RULES = GateRules(mode="after", model=VERSION, target_rate=0.5, item_id_pattern=r"\d+")
FEW_OPEN = replace(gate_model(), after=scorer(AFTER, "lexical_found", at=1.0, sign=-1.0))
"""Opens where lexical retrieval finds next to nothing."""
LATER = replace(RELEASE, gate=RULES)


def searched(
    stages: MemoryStages, *, query: str = "mug", seconds: float = 1.0, rules: GateRules = RULES
) -> Answer:
    release = replace(LATER, gate=rules)
    search = Search(
        request=SearchRequest(surface="gifts", query=query, page_size=2),
        context=SearchContext(query=query, now_ms=5),
        release=release,
        deadline=Deadline.after(seconds, stages.clock),
    )
    return asyncio.run(cascade.run(search, stages, Gatekeeper(rules=rules, model=FEW_OPEN)))


def stages(**changed: Candidates | HeadraceError) -> MemoryStages:
    answers: Mapping[str, Candidates | HeadraceError] = {**ANSWERS, **changed}
    return MemoryStages(answers, homes=dict.fromkeys(ANSWERS, "s1"))


def test_what_words_find_keeps_the_gate_closed() -> None:
    asked = stages()
    answer = searched(asked)
    assert (answer.gate.open, answer.gate.reason) == (False, "gain_unlikely")
    assert "tower" not in asked.calls
    assert {timing.channel for timing in answer.timings if timing.stage is Stage.RETRIEVAL} == {"lexical"}
    assert [item.item_id for item in answer.items] == ["c", "a"]


def test_where_words_find_little_embeddings_are_asked_after_them() -> None:
    asked = stages(words=ranked("a"))
    answer = searched(asked)
    assert (answer.gate.open, answer.gate.reason) == (True, "gain_likely")
    assert answer.gate.probability is not None
    assert list(asked.calls) == ["words", "tower", "light", "heavy"]
    steps = [[step.stage for step in call.steps] for call, _ in asked.asked_together]
    assert steps == [[Stage.PRE_RANKING, Stage.RANKING]], "what is left goes together"
    assert "d" in {item.item_id for item in answer.items}


def test_the_page_is_that_of_a_gate_that_decided_before() -> None:
    poor = ranked("a")
    after = searched(stages(words=poor))
    always = searched(stages(words=poor), rules=replace(RULES, mode="always"))
    assert [(item.item_id, item.score) for item in after.items] == [
        (item.item_id, item.score) for item in always.items
    ]


def test_a_rule_needs_no_lexical_scores_and_all_goes_together() -> None:
    asked = stages()
    answer = searched(asked, query="12345")
    assert answer.gate.reason == "exact_id"
    assert len(asked.asked_together) == 1


def test_a_lexical_channel_that_fails_leaves_the_decision_to_what_is_known_before() -> None:
    answer = searched(stages(words=Unavailable("gone")), query="big red mug")
    assert (answer.gate.open, answer.gate.reason) == (True, "gain_likely")
    assert [(gap.channel, gap.reason) for gap in answer.gaps] == [("lexical", GapReason.UNAVAILABLE)]
    assert answer.items


def test_embeddings_that_fail_after_the_words_are_a_gap() -> None:
    answer = searched(stages(words=ranked("a"), tower=Unavailable("gone")))
    assert answer.gate.open
    assert [(gap.channel, gap.reason) for gap in answer.gaps] == [("ann", GapReason.UNAVAILABLE)]
    assert [item.item_id for item in answer.items] == ["a"]


def test_nothing_at_all_is_the_error_of_a_search() -> None:
    gone = Unavailable("gone")
    with pytest.raises(Unavailable):
        searched(stages(words=gone, tower=gone), query="big red mug")
    with pytest.raises(Unavailable):
        searched(stages(words=gone), query="mug")


def test_embeddings_get_what_words_left_of_the_retrieval_budget() -> None:
    asked = stages(words=ranked("a"))
    asked.takes_s = {"words": 0.25, "tower": 0.1}
    answer = searched(asked)
    assert [(gap.channel, gap.reason) for gap in answer.gaps] == [("ann", GapReason.DEADLINE)]
    asked = stages(words=ranked("a"))
    asked.takes_s = {"words": 0.15, "tower": 0.1}
    assert searched(asked).gaps == ()
