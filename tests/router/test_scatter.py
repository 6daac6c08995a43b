"""Channels whose catalogue several bundles hold: what the cascade makes of their answers and failures."""

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from router import cascade
from router.answer import Answer
from router.budget import Deadline
from router.coverage import GapReason
from router.search import Search
from services.codec import Retrieval, SearchRequest
from shards.candidates import SCORE, Candidates
from shards.errors import DeadlineExceeded, FieldViolation, HeadraceError, InvalidInput, Unavailable
from shards.gathering import CATALOGUE_ROW, row_keys
from shards.release import ModelVersion, Release, ReleaseChannel, partition_of
from shards.search_context import SearchContext
from tests.router.memory_stages import MemoryStages, ranked

TOWER = ModelVersion("tower", "1")
PARTS = [partition_of(TOWER, i, 2) for i in range(2)]
RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("words", "1"), k=3),
        ReleaseChannel(name="ann", model=TOWER, k=3, partitions=2),
    ),
    attributes=("title",),
    retrieval_budget_ms=300,
)
GONE = Unavailable("no shard holds it")


def part(**rows_and_scores: tuple[int, float]) -> Candidates:
    rows, scores = zip(*rows_and_scores.values(), strict=True)
    return Candidates(
        item_ids=tuple(rows_and_scores),
        columns={SCORE: np.array(scores, np.float32), CATALOGUE_ROW: row_keys(np.array(rows))},
        attributes={"title": tuple(f"The {item_id}" for item_id in rows_and_scores)},
    )


ANSWERS: Mapping[str, Candidates | HeadraceError] = {
    "words": ranked("x", titles=1),
    "tower.0-of-2": part(a=(4, 1.0), b=(7, 0.5), c=(9, 0.5)),
    "tower.1-of-2": part(d=(0, 0.75), e=(5, 0.5), f=(8, 0.25)),
}


def searched(stages: MemoryStages, *, seconds: float = 1.0) -> Answer:
    search = Search(
        request=SearchRequest(surface="gifts", query="mug", page_size=9),
        context=SearchContext(query="mug", now_ms=5),
        release=RELEASE,
        deadline=Deadline.after(seconds, stages.clock),
    )
    return asyncio.run(cascade.run(search, stages))


def gaps_of(answer: Answer) -> list[tuple[str, str, GapReason]]:
    return [(gap.channel, str(gap.model), gap.reason) for gap in answer.gaps]


def test_partitions_are_one_channel() -> None:
    stages = MemoryStages(ANSWERS)
    answer = searched(stages)
    found = answer.explanation.channels["ann"]
    assert found.item_ids == ("a", "d", "e")
    assert found.columns.keys() == {SCORE}
    assert found.attributes == {"title": ("The a", "The d", "The e")}
    assert {item.item_id: item.channels for item in answer.items}["e"] == ("ann",)
    assert all(
        "tower" not in name and "catalogue_row" not in name for item in answer.items for name in item.scores
    )
    assert answer.gaps == ()
    calls = [stages.calls[bundle.model] for bundle in PARTS]
    assert [call.k for call in calls if isinstance(call, Retrieval)] == [3, 3]


def test_every_partition_has_its_timing() -> None:
    timings = searched(MemoryStages(ANSWERS)).timings
    assert [(t.channel, str(t.model), t.candidates) for t in timings] == [
        ("lexical", "words@1", 1),
        ("ann", "tower.0-of-2@1", 3),
        ("ann", "tower.1-of-2@1", 3),
    ]


def test_a_partition_that_is_missing_is_a_gap_beside_the_others() -> None:
    answer = searched(MemoryStages({**ANSWERS, "tower.0-of-2": GONE}))
    assert answer.explanation.channels["ann"].item_ids == ("d", "e", "f")
    assert gaps_of(answer) == [("ann", "tower.0-of-2@1", GapReason.UNAVAILABLE)]


def test_without_any_partition_the_channel_is_missing() -> None:
    answer = searched(MemoryStages({**ANSWERS, "tower.0-of-2": GONE, "tower.1-of-2": GONE}))
    assert [item.item_id for item in answer.items] == ["x"]
    assert answer.explanation.channels.keys() == {"lexical"}
    assert [gap[1] for gap in gaps_of(answer)] == ["tower.0-of-2@1", "tower.1-of-2@1"]


def test_without_any_channel_the_search_fails() -> None:
    with pytest.raises(Unavailable, match="no channel could answer"):
        searched(MemoryStages({"words": GONE, "tower.0-of-2": GONE, "tower.1-of-2": GONE}))
    mistake = InvalidInput(FieldViolation("filter.clauses[0].attribute", "'colour' is not an attribute"))
    with pytest.raises(InvalidInput, match="is not an attribute"):
        searched(MemoryStages({"words": GONE, "tower.0-of-2": mistake, "tower.1-of-2": mistake}))


def test_late_partitions_are_asked_again_when_nothing_else_came() -> None:
    late = DeadlineExceeded("late")
    stages = MemoryStages(
        {**ANSWERS, "words": GONE, "tower.1-of-2": late},
        takes_s={"tower.0-of-2": 0.4},
    )
    answer = searched(stages, seconds=2.0)
    assert answer.explanation.channels["ann"].item_ids == ("a", "b", "c")
    assert gaps_of(answer) == [
        ("lexical", "words@1", GapReason.UNAVAILABLE),
        ("ann", "tower.1-of-2@1", GapReason.DEADLINE),
    ]
