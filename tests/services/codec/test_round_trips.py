"""Whatever is sent comes back equal, through real bytes."""

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from protos.headrace.v1.cascade_service_pb2 import RunResponse
from services import codec
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep, StepDone
from shards.errors import InvalidInput
from shards.placement import Placement
from shards.release import ModelVersion, Release, Stage
from shards.replica import Replica
from shards.search_context import Filter, FilterClause, SearchContext
from tests.services.codec import strategies

M = TypeVar("M", bound=Message)


def wire(message: M) -> M:
    """Return the message as the far side parses it."""
    return type(message).FromString(message.SerializeToString())


def check_equal(actual: Candidates, expected: Candidates) -> None:
    assert actual.item_ids == expected.item_ids
    assert actual.attributes == expected.attributes
    assert list(actual.columns) == list(expected.columns)
    for name, column in expected.columns.items():
        assert actual.columns[name].dtype == np.float32
        np.testing.assert_array_equal(actual.columns[name], column)


@given(strategies.contexts)
def test_context(context: SearchContext) -> None:
    assert codec.context_from_proto(wire(codec.context_to_proto(context))) == context


@given(strategies.filters)
def test_filter(clauses: Filter) -> None:
    assert codec.filter_from_proto(wire(codec.filter_to_proto(clauses))) == clauses


@given(strategies.candidates())
def test_candidates_with_nan(candidates: Candidates) -> None:
    check_equal(codec.candidates_from_proto(wire(codec.candidates_to_proto(candidates))), candidates)


def test_candidates_long_enough_for_every_size_of_varint() -> None:
    for count in (0, 1, 31, 32, 4_095, 4_096, 20_000):
        candidates = Candidates(
            item_ids=tuple(map(str, range(count))),
            columns={"lexical.rank": np.arange(count, dtype=np.float32)},
        )
        message = wire(codec.candidates_to_proto(candidates))
        assert list(message.columns[0].values) == list(range(count))
        check_equal(codec.candidates_from_proto(message), candidates)


def test_candidates_of_a_strided_or_wider_column() -> None:
    column = np.array([[1.5, 9.0], [math.nan, 9.0]])[:, 0].astype(np.float64)
    candidates = Candidates(item_ids=("a", "b"), columns={"score": column})  # type: ignore[dict-item]
    back = codec.candidates_from_proto(wire(codec.candidates_to_proto(candidates)))
    np.testing.assert_array_equal(back.columns["score"], np.array([1.5, math.nan], np.float32))


@given(strategies.releases)
def test_release(release: Release) -> None:
    assert codec.release_from_proto(wire(codec.release_to_proto(release))) == release


@given(strategies.placements())
def test_placement(placement: Placement) -> None:
    assert codec.placement_from_proto(wire(codec.placement_to_proto(placement))) == placement


@given(strategies.replicas)
def test_replica(replica: Replica) -> None:
    assert codec.replica_from_proto(wire(codec.replica_to_proto(replica))) == replica


@given(strategies.moments_ms)
def test_moment(moment_ms: int) -> None:
    assert codec.timestamp_from_proto(wire(codec.timestamp_to_proto(moment_ms))) == moment_ms


@given(st.integers(0, 10**7))
def test_duration(millis: int) -> None:
    back_s = codec.duration_from_proto(wire(codec.duration_to_proto(millis / 1000)))
    assert math.isclose(back_s, millis / 1000, abs_tol=1e-9)


@given(
    st.builds(
        codec.SearchRequest,
        surface=strategies.words,
        query=st.text(max_size=50),
        user_id=strategies.words,
        context=strategies.features,
        page_size=st.integers(1, 500),
        filter=strategies.filters,
        explain=st.booleans(),
        now_ms=st.none() | strategies.moments_ms,
        request_id=st.text(max_size=10),
    )
)
def test_search(request: codec.SearchRequest) -> None:
    assert codec.search_from_proto(wire(codec.search_to_proto(request))) == request


@given(
    st.builds(
        codec.Retrieval,
        model=strategies.models,
        context=strategies.contexts,
        k=st.integers(1, 10_000),
        filter=strategies.filters,
        attributes=st.lists(strategies.words).map(tuple),
        attribute_count=strategies.counts,
    )
)
def test_retrieval(call: codec.Retrieval) -> None:
    assert codec.retrieve_from_proto(wire(codec.retrieve_to_proto(call))) == call


def test_scoring_and_its_answer() -> None:
    model = ModelVersion("ranker", "7")
    candidates = Candidates(item_ids=("a", "b"), columns={"lexical.score": np.array([2, np.nan], np.float32)})
    call = codec.Scoring(
        model=model,
        context=SearchContext(query="mug", now_ms=5),
        candidates=candidates,
        keep=1,
        task_exponents={"purchase": 0.3},
        attributes=("title",),
        attribute_count=1,
    )
    ranked = codec.rank_from_proto(wire(codec.rank_to_proto(call)))
    assert (ranked.model, ranked.context, ranked.keep) == (model, call.context, 1)
    assert ranked.task_exponents == {"purchase": 0.3}
    check_equal(ranked.candidates, candidates)
    pre_ranked = codec.pre_rank_from_proto(wire(codec.pre_rank_to_proto(call)))
    assert pre_ranked.task_exponents == {}
    assert (pre_ranked.attributes, pre_ranked.attribute_count) == (("title",), 1)
    check_equal(pre_ranked.candidates, candidates)


def test_a_cascade_and_its_answer() -> None:
    candidates = Candidates(item_ids=("a", "b"), columns={"lexical.score": np.array([2, np.nan], np.float32)})
    call = CascadeCall(
        context=SearchContext(query="mug", now_ms=5),
        steps=(
            CascadeStep(
                stage=Stage.RETRIEVAL,
                channel="ann",
                model=ModelVersion("tower", "1"),
                keep=7,
                weight=0.5,
                quota=3,
            ),
            CascadeStep(stage=Stage.RANKING, model=ModelVersion("ranker", "7"), keep=1, intake=40),
        ),
        candidates=candidates,
        merged=50,
        filter=(FilterClause(attribute="brand", any_of=("acme",)),),
        task_exponents={"purchase": 0.5},
        attributes=("title",),
        attribute_count=1,
    )
    read = codec.cascade_from_proto(wire(codec.cascade_to_proto(call)))
    check_equal(read.candidates, candidates)
    assert replace(read, candidates=candidates) == call
    answer = codec.CascadeAnswer(
        shard_id="s1",
        queue_s=0.25,
        done=(StepDone(model=ModelVersion("tower", "1"), compute_s=0.5, candidates=7),),
        candidates=candidates,
    )
    returned = codec.cascade_answer_from_proto(wire(codec.cascade_answer_to_proto(answer)))
    check_equal(returned.candidates, candidates)
    assert replace(returned, candidates=candidates) == answer
    with pytest.raises(InvalidInput, match="headers"):
        codec.cascade_answer_from_proto(RunResponse())


def test_stages_map_both_ways() -> None:
    assert {codec.STAGE_FROM_PROTO[codec.STAGE_TO_PROTO[stage]] for stage in Stage} == set(Stage)
