from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shards.candidates import Candidates
from shards.partitioning import split
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from shards.search_context import Filter, SearchContext
from tests.shards import bundles
from tests.training.small_dataset import small_dataset
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import Cascade, evaluate, open_cascade, rankings, retrieve
from training.evaluation.report import HYBRID, PRE_RANKED, RANKED

CONTEXT = SearchContext(query="mug", now_ms=5)


def scored(item_ids: tuple[str, ...]) -> Candidates:
    return Candidates(
        item_ids=item_ids, columns={"score": np.arange(len(item_ids), 0, -1).astype(np.float32)}
    )


@dataclass(frozen=True)
class Shelf:
    """Retrieves the same items whatever is asked."""

    item_ids: tuple[str, ...]

    def retrieve(
        self,
        context: SearchContext,  # noqa: ARG002
        k: int,
        allowed: Filter,  # noqa: ARG002
        attributes: tuple[str, ...],  # noqa: ARG002
        attribute_count: int,  # noqa: ARG002
        /,
    ) -> Candidates:
        return scored(self.item_ids[:k])


@dataclass(frozen=True)
class Taste:
    """Puts the items it knows into its own order, and needs the columns that come before it."""

    order: tuple[str, ...]
    needs: str

    def score(
        self,
        context: SearchContext,  # noqa: ARG002
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],  # noqa: ARG002
        attributes: tuple[str, ...],  # noqa: ARG002
        attribute_count: int,  # noqa: ARG002
        /,
    ) -> Candidates:
        assert self.needs in candidates.columns
        known = tuple(item_id for item_id in self.order if item_id in candidates.item_ids)
        return scored(known[: keep or None])


def channel(name: str, *, gated: bool = False, k: int = 10) -> ReleaseChannel:
    return ReleaseChannel(name=name, model=ModelVersion(name, "1"), k=k, gated=gated)


RELEASE = Release(
    surface="small",
    version="1",
    channels=(channel("lexical"), channel("two_tower", gated=True)),
    pre_ranker=ReleaseScorer(model=ModelVersion("pre", "1"), candidates=500),
    ranker=ReleaseScorer(model=ModelVersion("rank", "1"), candidates=200),
)
CASCADE = Cascade(
    release=RELEASE,
    retrievers={"lexical": Shelf(("a", "b")), "two_tower": Shelf(("c", "b"))},
    pre_ranker=Taste(("c", "a", "b"), "merge.score"),
    ranker=Taste(("b", "c", "a"), "pre_rank.score"),
)


def ranked(cascade: Cascade, context: SearchContext, *, gate_open: bool) -> dict[str, tuple[str, ...]]:
    return rankings(cascade, context, retrieve(cascade, context), gate_open=gate_open)


def test_every_stage_is_a_ranking() -> None:
    assert ranked(CASCADE, CONTEXT, gate_open=True) == {
        "lexical": ("a", "b"),
        "two_tower": ("c", "b"),
        HYBRID: ("b", "a", "c"),
        PRE_RANKED: ("c", "a", "b"),
        RANKED: ("b", "c", "a"),
    }


def test_a_closed_gate_keeps_its_channels_out_of_the_cascade_only() -> None:
    found = ranked(CASCADE, CONTEXT, gate_open=False)
    assert found["two_tower"] == ("c", "b")
    assert found[HYBRID] == ("a", "b")
    assert found[RANKED] == ("b", "a")


def test_a_release_without_scorers_stops_at_the_merge() -> None:
    bare = replace(
        CASCADE, release=replace(RELEASE, pre_ranker=None, ranker=None), pre_ranker=None, ranker=None
    )
    assert list(ranked(bare, CONTEXT, gate_open=True)) == ["lexical", "two_tower", HYBRID]


def test_a_scorer_that_knows_no_item_leaves_the_order() -> None:
    stranger = replace(CASCADE, ranker=Taste(("z",), "pre_rank.score"))
    assert ranked(stranger, CONTEXT, gate_open=True)[RANKED] == ("c", "a", "b")


def test_a_channel_gives_no_more_than_its_k() -> None:
    release = replace(RELEASE, channels=(channel("lexical", k=1),), pre_ranker=None, ranker=None)
    cascade = Cascade(release=release, retrievers=CASCADE.retrievers, pre_ranker=None, ranker=None)
    assert ranked(cascade, CONTEXT, gate_open=True)[HYBRID] == ("a",)


def test_evaluate_finds_the_place_of_every_relevant_item() -> None:
    judged = judged_queries(small_dataset(), "train", limit=0, history_limit=9)
    asked: list[None] = []
    ranks = evaluate(
        CASCADE, judged, gate=lambda context, _: context.query == "mug", on_query=lambda: asked.append(None)
    )
    assert ranks.query_ids == ("q1", "q2")
    assert ranks.with_history.tolist() == [False, False]
    # "mug" wants "a" with both channels, "blue" wants "b" with the lexical one alone.
    assert {name: values.tolist() for name, values in ranks.by_ranking.items()} == {
        "lexical": [1, 2],
        "two_tower": [0, 2],
        HYBRID: [2, 2],
        PRE_RANKED: [2, 2],
        RANKED: [3, 1],
    }
    assert len(asked) == 2


def test_judged_queries_are_as_of_their_own_time() -> None:
    (test,) = judged_queries(small_dataset(), "test", limit=0, history_limit=1)
    assert (test.query_id, test.relevant, test.context.now_ms) == ("q4", "b", 4000)
    assert test.context.user.history.item_ids == ("b",)
    assert len(judged_queries(small_dataset(), "train", limit=1, history_limit=1)) == 1


def test_a_partitioned_channel_ranks_as_the_whole(tmp_path: Path) -> None:
    table = bundles.neighbour_table()
    bundles.write_table(tmp_path, "neighbours", {"key": "history"}, table)
    whole = Release(
        surface="shop",
        version="r1",
        channels=(ReleaseChannel(name="neighbours", model=ModelVersion("neighbours", "1"), k=9),),
    )
    divided = replace(whole, channels=(replace(whole.channels[0], partitions=4),))
    split(tmp_path, whole.channels[0].model, 4)
    context = bundles.context("", "item-003", "item-117", "item-042")
    expected = ranked(open_cascade(whole, tmp_path), context, gate_open=True)
    assert len(expected["neighbours"]) == 6
    assert ranked(open_cascade(divided, tmp_path), context, gate_open=True) == expected
