"""One shard that holds every bundle of a release answers in one call what it answers one by one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from router.coverage import GapReason
from shards.candidates import EMPTY, Candidates
from shards.errors import HeadraceError, NotOwner, Unavailable
from shards.release import Release, Stage
from tests.router.memory_stages import MemoryStages, ranked
from tests.router.test_cascade import ANSWERS, RELEASE, searched

DESCRIBED: Mapping[str, Candidates | HeadraceError] = {
    name: replace(answer, attributes={"title": tuple(f"The {item_id}" for item_id in answer.item_ids)})
    for name, answer in ANSWERS.items()
    if isinstance(answer, Candidates)
}
UNSCORED: dict[str, Any] = {"pre_ranker": None, "ranker": None, "task_exponents": {}}


def stages(together_on: str = "s1", **changed: Candidates | HeadraceError) -> MemoryStages:
    return MemoryStages({**DESCRIBED, **changed}, together_on=together_on)


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
@pytest.mark.parametrize("query", ["mug", "12345"])
@pytest.mark.parametrize("page_size", [1, 2, 20])
def test_the_page_is_that_of_stages_asked_one_by_one(release: Release, query: str, page_size: int) -> None:
    one, many = stages(), stages(together_on="")
    together = searched(one, release=release, query=query, page_size=page_size)
    apart = searched(many, release=release, query=query, page_size=page_size)
    assert len(one.asked_together) == (len(together.timings) > 1)
    assert together.items == apart.items
    assert together.gaps == apart.gaps == ()
    assert [(t.stage, t.channel, t.model, t.candidates) for t in together.timings] == [
        (t.stage, t.channel, t.model, t.candidates) for t in apart.timings
    ]


def test_a_shard_gets_the_budgets_of_all_stages_but_no_more_than_the_search_has() -> None:
    answering = stages()
    searched(answering)
    searched(answering, release=replace(RELEASE, retrieval_budget_ms=5_000))
    (_, budgets_s), (_, rest_s) = answering.asked_together
    assert budgets_s == pytest.approx(0.7)
    assert rest_s == pytest.approx(0.985)


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
