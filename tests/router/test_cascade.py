import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router import cascade
from router.answer import Answer
from router.budget import Deadline
from router.coverage import GapReason
from router.search import Search
from services.codec import Retrieval, Scoring, SearchRequest, StageAnswer
from shards.candidates import EMPTY, Candidates
from shards.errors import (
    DeadlineExceeded,
    FieldViolation,
    HeadraceError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from shards.release import GateRules, ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage
from shards.search_context import FilterClause, History, SearchContext, UserState
from tests.router.memory_stages import MemoryStages, ranked

RELEASE = Release(
    surface="gifts",
    version="r1",
    gate=GateRules(item_id_pattern=r"\d+"),
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("words", "1"), k=5),
        ReleaseChannel(name="ann", model=ModelVersion("tower", "1"), k=6, gated=True),
    ),
    pre_ranker=ReleaseScorer(model=ModelVersion("light", "1"), candidates=8, budget_ms=200),
    ranker=ReleaseScorer(model=ModelVersion("heavy", "1"), candidates=4, budget_ms=200),
    merged=10,
    task_exponents={"buy": 2.0},
    attributes=("title",),
    retrieval_budget_ms=300,
)
ANSWERS: Mapping[str, Candidates | HeadraceError] = {
    "words": ranked("a", "b", "c", titles=2),
    "tower": ranked("b", "d", titles=2),
    "light": ranked("d", "c", "b", "a", titles=2),
    "heavy": ranked("c", "d", "a", titles=2, buy=0.25),
}
GONE = Unavailable("connection refused")
STRANGER = UserState()


def searched(
    stages: MemoryStages,
    *,
    release: Release = RELEASE,
    query: str = "mug",
    seconds: float = 1.0,
    user: UserState = STRANGER,
    **asked: Any,
) -> Answer:
    search = Search(
        request=SearchRequest(surface="gifts", query=query, **{"page_size": 2} | asked),
        context=SearchContext(query=query, user=user, now_ms=5),
        release=release,
        deadline=Deadline.after(seconds, stages.clock),
    )
    return asyncio.run(cascade.run(search, stages))


def with_answers(**changed: Candidates | HeadraceError) -> MemoryStages:
    return MemoryStages({**ANSWERS, **changed})


def page_of(answer: Answer) -> tuple[str, ...]:
    return tuple(item.item_id for item in answer.items)


def gaps_of(answer: Answer) -> list[tuple[Stage | None, str, GapReason]]:
    return [(gap.stage, gap.channel, gap.reason) for gap in answer.gaps]


def test_every_stage_leaves_its_mark_on_the_page() -> None:
    answer = searched(with_answers())
    assert page_of(answer) == ("c", "d")
    first, second = answer.items
    assert first.score == 1.0
    assert first.channels == ("lexical",)
    assert second.channels == ("ann",)
    assert first.attributes == {"title": "The c"}
    assert first.scores.keys() == {
        "lexical.score",
        "lexical.rank",
        "merge.score",
        "pre_rank.score",
        "rank.score",
        "rank.buy",
    }
    assert first.scores["lexical.rank"] == 3
    assert first.scores["rank.buy"] == 0.25
    assert (answer.gaps, answer.gate.reason) == ((), "default_open")


def test_each_stage_is_asked_what_it_needs() -> None:
    stages = with_answers()
    searched(stages)
    words, light, heavy = stages.calls["words"], stages.calls["light"], stages.calls["heavy"]
    assert isinstance(words, Retrieval)
    assert isinstance(light, Scoring)
    assert isinstance(heavy, Scoring)
    assert (words.k, words.attributes, words.attribute_count) == (5, ("title",), 2)
    assert light.candidates.item_ids == ("b", "a", "d", "c")
    assert {"lexical.rank", "ann.score", "merge.score"} <= light.candidates.columns.keys()
    assert (light.keep, light.task_exponents) == (4, {})
    assert heavy.candidates.item_ids == ("d", "c", "b", "a")
    assert "pre_rank.score" in heavy.candidates.columns
    assert (heavy.keep, heavy.task_exponents, heavy.attribute_count) == (2, {"buy": 2.0}, 2)


def test_channels_that_are_all_late_get_the_rest_of_the_time() -> None:
    stages = with_answers()
    stages.takes_s = {"words": 0.4, "tower": 0.4}
    answer = searched(stages, seconds=3.0)
    assert page_of(answer) == ("c", "d")
    assert answer.gaps == ()


def test_a_late_channel_is_not_waited_for_while_another_answers() -> None:
    stages = with_answers()
    stages.takes_s = {"tower": 0.4}
    answer = searched(stages, seconds=3.0)
    assert page_of(answer) == ("c", "a")
    assert gaps_of(answer) == [(Stage.RETRIEVAL, "ann", GapReason.DEADLINE)]
    assert stages.now_s == 0.3


def test_timings_and_explanation_tell_what_happened() -> None:
    stages = with_answers()
    stages.takes_s = {"heavy": 0.03}
    answer = searched(stages)
    told = [(timing.stage, timing.channel, str(timing.model), timing.candidates) for timing in answer.timings]
    assert told == [
        (Stage.RETRIEVAL, "lexical", "words@1", 3),
        (Stage.RETRIEVAL, "ann", "tower@1", 2),
        (Stage.PRE_RANKING, "", "light@1", 4),
        (Stage.RANKING, "", "heavy@1", 2),
    ]
    assert answer.timings[-1].total_s == pytest.approx(0.03)
    assert answer.timings[-1].shard_id == "s1"
    explanation = answer.explanation
    assert explanation.channels["ann"].item_ids == ("b", "d")
    assert explanation.merged.item_ids == ("b", "a", "d", "c")
    assert explanation.pre_ranked.item_ids == ("d", "c", "b", "a")
    assert explanation.ranked.item_ids == ("c", "d")


def test_a_closed_gate_spares_the_gated_channels() -> None:
    stages = with_answers()
    answer = searched(stages, query="85123")
    assert "tower" not in stages.calls
    assert (answer.gate.open, answer.gate.reason, answer.gaps) == (False, "exact_id", ())


def test_a_failed_channel_is_a_gap_and_kills_no_other() -> None:
    answer = searched(with_answers(words=GONE, light=ranked("d", "b"), heavy=ranked("d", "b", buy=0.1)))
    assert page_of(answer) == ("d", "b")
    assert gaps_of(answer) == [(Stage.RETRIEVAL, "lexical", GapReason.UNAVAILABLE)]
    assert answer.gaps[0].detail == "connection refused"
    assert answer.items[0].attributes == {"title": "The d"}


@pytest.mark.parametrize(
    ("words", "tower", "raised"),
    [
        (GONE, NotFound("model", "tower@1"), Unavailable),
        (DeadlineExceeded("late"), DeadlineExceeded("late"), DeadlineExceeded),
        (GONE, InvalidInput(FieldViolation("filter.clauses[0].attribute", "unknown")), InvalidInput),
    ],
)
def test_a_search_fails_only_when_every_channel_does(
    words: HeadraceError, tower: HeadraceError, raised: type[HeadraceError]
) -> None:
    with pytest.raises(raised):
        searched(with_answers(words=words, tower=tower))


def test_nothing_found_is_an_empty_and_complete_page() -> None:
    stages = with_answers(words=EMPTY, tower=EMPTY)
    answer = searched(stages)
    assert (answer.items, answer.gaps) == ((), ())
    assert stages.calls.keys() == {"words", "tower"}


def test_nothing_found_while_a_channel_failed_is_an_empty_page_with_a_gap() -> None:
    answer = searched(with_answers(words=EMPTY, tower=GONE))
    assert answer.items == ()
    assert gaps_of(answer) == [(Stage.RETRIEVAL, "ann", GapReason.UNAVAILABLE)]


def test_without_ranking_pre_ranking_orders() -> None:
    answer = searched(with_answers(heavy=HeadraceError("INTERNAL: internal error")))
    assert page_of(answer) == ("d", "c")
    assert answer.items[0].score == answer.items[0].scores["pre_rank.score"] == 1.0
    assert answer.items[0].attributes == {"title": "The d"}
    assert gaps_of(answer) == [(Stage.RANKING, "", GapReason.FAILED)]
    assert answer.explanation.ranked == EMPTY


def test_without_pre_ranking_the_ranker_sees_the_merged() -> None:
    stages = with_answers(light=GONE)
    answer = searched(stages)
    heavy = stages.calls["heavy"]
    assert isinstance(heavy, Scoring)
    assert heavy.candidates.item_ids == ("b", "a", "d", "c")
    assert page_of(answer) == ("c", "d")
    assert gaps_of(answer) == [(Stage.PRE_RANKING, "", GapReason.UNAVAILABLE)]


def test_without_both_the_merge_orders() -> None:
    answer = searched(with_answers(light=GONE, heavy=NotFound("model", "heavy@1")))
    assert page_of(answer) == ("b", "a")
    assert answer.items[0].score == answer.items[0].scores["merge.score"]
    assert [item.attributes["title"] for item in answer.items] == ["The b", "The a"]
    assert gaps_of(answer) == [
        (Stage.PRE_RANKING, "", GapReason.UNAVAILABLE),
        (Stage.RANKING, "", GapReason.NO_REPLICA),
    ]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (ranked("c", "zebra", buy=0.1), "rank returned the item 'zebra'"),
        (EMPTY, "knows none of the 4 candidates"),
    ],
)
def test_a_useless_ranking_is_left_out(answer: Candidates, detail: str) -> None:
    stages = with_answers(light=ranked("d", "c", "b", "a"), heavy=answer)
    stages.obedient = False
    degraded = searched(stages)
    assert page_of(degraded) == ("d", "c")
    assert gaps_of(degraded) == [(Stage.RANKING, "", GapReason.FAILED)]
    assert detail in degraded.gaps[0].detail


def test_short_of_time_candidates_shrink_then_ranking_is_skipped() -> None:
    stages = with_answers(
        light=ranked("d", "c", "b", "a"), heavy=ranked("d", "c", buy=0.1), words=ranked(*"abcefgh")
    )
    stages.takes_s = {"light": 0.15}
    answer = searched(stages, seconds=0.245)
    heavy = stages.calls["heavy"]
    assert isinstance(heavy, Scoring)
    assert heavy.candidates.item_ids == ("d", "c")
    assert gaps_of(answer) == [(Stage.RANKING, "", GapReason.SHRUNK)]
    assert answer.gaps[0].detail == "scored 2 of 4 candidates: time was short"

    stages = with_answers()
    stages.takes_s = {"light": 0.15}
    answer = searched(stages, seconds=0.166)
    assert "heavy" not in stages.calls
    assert page_of(answer) == ("d", "c")
    assert gaps_of(answer) == [(Stage.RANKING, "", GapReason.SKIPPED)]


def test_a_hung_stage_costs_its_budget_and_no_more() -> None:
    stages = with_answers()
    stages.takes_s = {"light": 99.0}
    answer = searched(stages)
    assert stages.now_s == pytest.approx(0.2)
    assert page_of(answer) == ("c", "d")
    assert gaps_of(answer) == [(Stage.PRE_RANKING, "", GapReason.DEADLINE)]


def test_a_search_without_any_time_asks_nobody() -> None:
    stages = with_answers()
    with pytest.raises(DeadlineExceeded, match="lexical: no time was left to ask"):
        searched(stages, seconds=0.004)
    assert stages.calls == {}


def test_a_long_page_is_scored_in_full() -> None:
    stages = with_answers()
    searched(stages, page_size=500)
    light, heavy = stages.calls["light"], stages.calls["heavy"]
    assert isinstance(light, Scoring)
    assert isinstance(heavy, Scoring)
    assert light.keep == 500
    assert len(heavy.candidates) == 4


def test_a_release_without_scorers_is_ordered_by_the_merge() -> None:
    stages = with_answers(words=ranked("a", "b", "c", titles=3))
    answer = searched(stages, release=replace(RELEASE, pre_ranker=None, ranker=None), page_size=3)
    assert page_of(answer) == ("b", "a", "d")
    words = stages.calls["words"]
    assert isinstance(words, Retrieval)
    assert words.attribute_count == words.k
    assert answer.gaps == ()


def test_a_release_with_a_ranker_only_ranks_the_merged() -> None:
    answer = searched(with_answers(), release=replace(RELEASE, pre_ranker=None))
    assert page_of(answer) == ("c", "d")
    assert "pre_rank.score" not in answer.items[0].scores


class LastFirst(MemoryStages):
    """Answers the first channel last."""

    async def retrieve(self, call: Retrieval, timeout_s: float) -> StageAnswer:
        if call.model.model == "words":
            for _ in range(9):
                await asyncio.sleep(0)
            assert "tower" in self.calls
        return await super().retrieve(call, timeout_s)


def test_the_order_of_answers_does_not_matter() -> None:
    usual, other = searched(with_answers()), searched(LastFirst(ANSWERS))
    assert usual.items == other.items
    assert list(usual.explanation.merged.columns) == list(other.explanation.merged.columns)
    for name, column in usual.explanation.merged.columns.items():
        np.testing.assert_array_equal(column, other.explanation.merged.columns[name])


@pytest.mark.parametrize("homes", [{}, dict.fromkeys(ANSWERS, "s1")])
def test_what_the_user_has_acted_on_is_left_out_by_every_channel(homes: Mapping[str, str]) -> None:
    asked = FilterClause(attribute="colour", any_of=("red",))
    history = History(("a", "b", "c", "b"), ("buy", "buy", "view", "buy"), (1, 2, 3, 4))
    release = replace(RELEASE, exclude_actions=("buy",), attributes=())
    stages = MemoryStages(dict(ANSWERS), homes=homes)
    searched(stages, release=release, user=UserState(user_id="u", history=history), filter=(asked,))
    filters = [call.filter for call, _ in stages.asked_together]
    filters += [call.filter for call in stages.calls.values() if isinstance(call, Retrieval)]
    left_out = FilterClause(attribute="item_id", any_of=("a", "b"), negate=True)
    assert filters
    assert all(found == (asked, left_out) for found in filters)
    assert len(stages.asked_together) == bool(homes)

    strangers = MemoryStages(dict(ANSWERS))
    searched(strangers, release=release)
    assert [call.filter for call in strangers.calls.values() if isinstance(call, Retrieval)] == [(), ()]


def test_contributions_are_asked_for_the_first_items_as_they_were_ranked() -> None:
    stages = with_answers()
    answer = searched(stages, explain=True, contributions=1)
    (call,) = stages.explained
    assert (call.count, call.candidates.item_ids) == (1, ("c", "d", "a"))
    assert not any(name.startswith("rank.") for name in call.candidates.columns)
    assert "pre_rank.score" in call.candidates.columns
    assert call.task_exponents == {"buy": 2.0}
    first, second = answer.items
    assert list(first.contributions) == ["loss", "contribution"]
    assert first.contributions["loss"] == pytest.approx(-0.2)
    assert (second.contributions, answer.gaps) == ({}, ())


def test_no_contributions_are_asked_unasked_or_of_a_ranker_that_failed() -> None:
    stages = with_answers()
    assert searched(stages, explain=True).items[0].contributions == {}
    failed = with_answers(heavy=GONE)
    answer = searched(failed, explain=True, contributions=2)
    assert stages.explained == failed.explained == []
    assert gaps_of(answer) == [(Stage.RANKING, "", GapReason.UNAVAILABLE)]


def test_contributions_that_fail_are_a_gap_and_the_page_stays() -> None:
    answer = searched(with_answers(**{"heavy explained": GONE}), explain=True, contributions=2)
    assert page_of(answer) == ("c", "d")
    assert gaps_of(answer) == [(Stage.RANKING, "", GapReason.UNAVAILABLE)]
    assert answer.gaps[0].detail == "contributions: connection refused"


def test_contributions_for_which_no_time_is_left_are_a_gap() -> None:
    stages = with_answers()
    stages.takes_s = {"heavy": 0.184}
    answer = searched(stages, seconds=0.2, explain=True, contributions=2)
    assert page_of(answer) == ("c", "d")
    assert (gaps_of(answer), stages.explained) == ([(Stage.RANKING, "", GapReason.SKIPPED)], [])
