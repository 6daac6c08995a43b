"""Consecutive stages that one shard holds are answered in one call, as they are answered one by one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from router.coverage import GapReason
from shards.candidates import EMPTY, Candidates
from shards.errors import HeadraceError, NotOwner, Overloaded, Unavailable
from shards.release import ModelVersion, Release, ReleaseScorer, Stage
from tests.router.memory_stages import MemoryStages, ranked
from tests.router.test_cascade import ANSWERS, RELEASE, searched

DESCRIBED: Mapping[str, Candidates | HeadraceError] = {
    name: replace(answer, attributes={"title": tuple(f"The {item_id}" for item_id in answer.item_ids)})
    for name, answer in ANSWERS.items()
    if isinstance(answer, Candidates)
}
UNSCORED: dict[str, Any] = {"pre_ranker": None, "ranker": None, "task_exponents": {}}


ON_ONE = dict.fromkeys(DESCRIBED, "s1")
ON_TWO = ON_ONE | {"light": "s2", "heavy": "s2"}


def stages(homes: Mapping[str, str] = ON_ONE, **changed: Candidates | HeadraceError) -> MemoryStages:
    return MemoryStages({**DESCRIBED, **changed}, homes=homes)


@pytest.mark.parametrize(
    "release",
    [
        RELEASE,
        replace(RELEASE, pre_ranker=None),
        replace(RELEASE, ranker=None, task_exponents={}),
        replace(RELEASE, **UNSCORED),
        replace(RELEASE, channels=(replace(RELEASE.channels[0], quota=3), RELEASE.channels[1]), merged=1),
    ],
)
@pytest.mark.parametrize("homes", [ON_ONE, ON_TWO, ON_ONE | {"heavy": "s2"}, ON_ONE | {"tower": "s2"}, {}])
@pytest.mark.parametrize("query", ["mug", "12345"])
@pytest.mark.parametrize("page_size", [1, 2, 20])
def test_the_page_is_that_of_stages_asked_one_by_one(
    release: Release, homes: Mapping[str, str], query: str, page_size: int
) -> None:
    together = searched(stages(homes), release=release, query=query, page_size=page_size)
    apart = searched(stages({}), release=release, query=query, page_size=page_size)
    assert together.items == apart.items
    assert together.gaps == apart.gaps == ()
    assert [(t.stage, t.channel, t.model, t.candidates) for t in together.timings] == [
        (t.stage, t.channel, t.model, t.candidates) for t in apart.timings
    ]


@pytest.mark.parametrize(
    ("homes", "query", "calls"),
    [
        (ON_ONE, "mug", [["words", "tower", "light", "heavy"]]),
        (ON_ONE, "12345", [["words", "light", "heavy"]]),
        (ON_TWO, "mug", [["words", "tower"], ["light", "heavy"]]),
        (ON_TWO, "12345", [["light", "heavy"]]),
        (ON_ONE | {"heavy": "s2"}, "mug", [["words", "tower", "light"]]),
        (ON_ONE | {"tower": "s2"}, "mug", [["light", "heavy"]]),
        (ON_ONE | {"light": "s2"}, "mug", [["words", "tower"]]),
        ({}, "mug", []),
    ],
)
def test_consecutive_stages_on_one_shard_are_one_call(
    homes: Mapping[str, str], query: str, calls: list[list[str]]
) -> None:
    answering = stages(homes)
    searched(answering, query=query)
    assert [[step.model.model for step in call.steps] for call, _ in answering.asked_together] == calls


def test_a_call_takes_no_more_than_it_needs_and_gives_no_more_than_is_used() -> None:
    answering = stages(ON_TWO)
    pre_ranker = ReleaseScorer(model=ModelVersion("light", "1"), candidates=2)
    searched(answering, release=replace(RELEASE, pre_ranker=pre_ranker))
    (first, _), (second, _) = answering.asked_together
    assert (first.returned, first.merged, first.task_exponents) == (0, 10, {})
    assert (len(second.candidates), second.task_exponents) == (2, {"buy": 2.0})


@pytest.mark.parametrize("missing", ["words", "light"])
def test_a_call_that_fails_leaves_the_others_together(missing: str) -> None:
    answering = stages(ON_TWO, **{missing: Unavailable("gone")})
    answer = searched(answering)
    assert [str(gap.model) for gap in answer.gaps] == [f"{missing}@1"]
    assert len(answering.asked_together) == 2
    assert answer.items[0].attributes


def test_a_shard_gets_the_budgets_of_all_stages_but_no_more_than_the_search_has() -> None:
    answering = stages()
    searched(answering)
    searched(answering, release=replace(RELEASE, retrieval_budget_ms=5_000))
    (_, budgets_s), (_, rest_s) = answering.asked_together
    assert budgets_s == pytest.approx(0.7)
    assert rest_s == pytest.approx(0.985)


FULL = Overloaded("full", retry_after_s=0.2)


def test_where_no_shard_has_room_to_score_the_channels_alone_answer() -> None:
    answering = stages(light=FULL)
    answer = searched(answering)
    assert [[step.model.model for step in call.steps] for call, _ in answering.asked_together] == [
        ["words", "tower", "light", "heavy"],
        ["words", "tower"],
    ]
    assert answer.items
    assert [(gap.stage, gap.reason, gap.detail) for gap in answer.gaps] == [
        (Stage.PRE_RANKING, GapReason.SKIPPED, "no shard had room to score"),
        (Stage.RANKING, GapReason.SKIPPED, "no shard had room to score"),
    ]
    assert answer.items[0].score == answer.items[0].scores["merge.score"]


def test_where_the_scorers_lie_apart_they_alone_are_left_out() -> None:
    answering = stages(ON_TWO, light=FULL)
    answer = searched(answering)
    assert len(answering.asked_together) == 2
    assert answer.items
    assert [gap.stage for gap in answer.gaps] == [Stage.PRE_RANKING, Stage.RANKING]


def test_without_room_for_the_channels_a_search_is_refused_after_two_calls() -> None:
    answering = stages(words=FULL)
    with pytest.raises(Overloaded) as caught:
        searched(answering)
    assert caught.value.retry_after_s == 0.2
    assert len(answering.asked_together) == 2


@pytest.mark.parametrize("error", [Unavailable("gone"), NotOwner("light@1"), HeadraceError("broken")])
def test_what_fails_together_is_asked_stage_by_stage(error: HeadraceError) -> None:
    answering = stages(light=error)
    answer = searched(answering)
    assert [item.item_id for item in answer.items] == ["c", "d"]
    assert [(gap.stage, str(gap.model)) for gap in answer.gaps] == [(Stage.PRE_RANKING, "light@1")]


def test_a_ranker_that_knows_no_candidate_is_a_gap_as_ever() -> None:
    answer = searched(stages(heavy=ranked("z", buy=0.5)))
    assert [gap.reason for gap in answer.gaps] == [GapReason.FAILED]
    assert answer.items[0].scores.keys() >= {"pre_rank.score"}


@pytest.mark.parametrize(
    ("release", "asked"),
    [
        (RELEASE, {"explain": True}),
        (replace(RELEASE, channels=RELEASE.channels[:1], **UNSCORED), {}),
        (replace(RELEASE, on_demand=True), {}),
    ],
)
def test_what_needs_more_than_the_last_list_is_asked_stage_by_stage(
    release: Release, asked: dict[str, Any]
) -> None:
    answering = stages()
    assert searched(answering, release=release, **asked).items
    assert not answering.asked_together


def test_a_scorer_for_which_no_time_is_left_is_left_out_and_named() -> None:
    answering = stages()
    answering.takes_s = {"light": 0.9}
    answer = searched(answering)
    assert [(gap.stage, gap.reason) for gap in answer.gaps] == [(Stage.RANKING, GapReason.SKIPPED)]
    assert answer.items[0].scores.keys() >= {"pre_rank.score"}
    assert answer.items[0].score == answer.items[0].scores["pre_rank.score"]
    assert answer.items[0].attributes


def test_where_nothing_is_found_nothing_is_missing() -> None:
    answer = searched(stages(words=EMPTY, tower=EMPTY))
    assert (answer.items, answer.gaps) == ((), ())
    assert [timing.stage for timing in answer.timings] == [Stage.RETRIEVAL] * 2
