"""Calls of a stage: what routers ask of shards, and what shards answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from protos.headrace.v1 import pre_ranking_service_pb2, ranking_service_pb2, retrieval_service_pb2
from protos.headrace.v1 import types_pb2 as pb
from services.codec.candidates import candidates_from_proto, candidates_to_proto, read_candidates
from services.codec.context import context_to_proto, read_context
from services.codec.filter import filter_to_proto, read_filter
from services.codec.moments import duration_from_proto, duration_to_proto
from services.codec.release import MAX_PRE_RANKED, MAX_RANKED, MAX_RETRIEVED, read_exponents
from services.codec.stages import model_version_to_proto, read_model_version
from services.codec.violations import Field, collecting
from shards.ablation import MOST_EXPLAINED
from shards.candidates import Candidates
from shards.release import ModelVersion
from shards.search_context import Filter, SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Asks one retrieval model for its `k` best candidates."""

    model: ModelVersion
    context: SearchContext
    k: int
    filter: Filter = ()
    attributes: tuple[str, ...] = ()
    attribute_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Asks one pre-ranking or ranking model to score candidates; `keep` 0 returns all of them.

    Empty `task_exponents` stand for the bundle's own; pre-ranking knows none.
    """

    model: ModelVersion
    context: SearchContext
    candidates: Candidates
    keep: int = 0
    task_exponents: Mapping[str, float] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    attribute_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """Asks a ranking model what each feature contributes to the first `count` candidates."""

    model: ModelVersion
    context: SearchContext
    candidates: Candidates
    count: int
    task_exponents: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAnswer:
    """What a shard answers: who it is, how long it took and the candidates, best first."""

    shard_id: str
    model: ModelVersion
    queue_s: float = 0.0
    compute_s: float = 0.0
    candidates: Candidates


class StageResponse(Protocol):
    """What the three response messages have in common."""

    @property
    def header(self) -> pb.StageHeader: ...  # noqa: D102
    @property
    def candidates(self) -> pb.Candidates: ...  # noqa: D102


def retrieve_to_proto(call: Retrieval) -> retrieval_service_pb2.RetrieveRequest:
    """Return the message of a retrieval."""
    return retrieval_service_pb2.RetrieveRequest(
        model=model_version_to_proto(call.model),
        context=context_to_proto(call.context),
        k=call.k,
        filter=filter_to_proto(call.filter),
        attributes=call.attributes,
        attribute_count=call.attribute_count,
    )


def retrieve_from_proto(message: retrieval_service_pb2.RetrieveRequest) -> Retrieval:
    """Return the retrieval; raises `InvalidInput` with every field at fault."""
    with collecting() as at:
        at.child("k").check_between(message.k, 1, MAX_RETRIEVED)
        return Retrieval(
            model=read_model_version(message.model, at.child("model")),
            context=read_context(message.context, at.child("context")),
            k=message.k,
            filter=read_filter(message.filter, at.child("filter")),
            attributes=read_attributes(message.attributes, at.child("attributes")),
            attribute_count=read_count(message.attribute_count, at.child("attribute_count")),
        )


def pre_rank_to_proto(call: Scoring) -> pre_ranking_service_pb2.PreRankRequest:
    """Return the message of a pre-ranking."""
    return pre_ranking_service_pb2.PreRankRequest(
        model=model_version_to_proto(call.model),
        context=context_to_proto(call.context),
        candidates=candidates_to_proto(call.candidates),
        keep=call.keep,
        attributes=call.attributes,
        attribute_count=call.attribute_count,
    )


def pre_rank_from_proto(message: pre_ranking_service_pb2.PreRankRequest) -> Scoring:
    """Return the pre-ranking; raises `InvalidInput` with every field at fault."""
    with collecting() as at:
        return _read_scoring(message, at, at_most=MAX_PRE_RANKED)


def rank_to_proto(call: Scoring) -> ranking_service_pb2.RankRequest:
    """Return the message of a ranking."""
    return ranking_service_pb2.RankRequest(
        model=model_version_to_proto(call.model),
        context=context_to_proto(call.context),
        candidates=candidates_to_proto(call.candidates),
        keep=call.keep,
        task_exponents=dict(call.task_exponents),
        attributes=call.attributes,
        attribute_count=call.attribute_count,
    )


def rank_from_proto(message: ranking_service_pb2.RankRequest) -> Scoring:
    """Return the ranking; raises `InvalidInput` with every field at fault."""
    with collecting() as at:
        exponents = read_exponents(message.task_exponents, at.child("task_exponents"))
        return _read_scoring(message, at, at_most=MAX_RANKED, task_exponents=exponents)


def explain_to_proto(call: Explaining) -> ranking_service_pb2.ExplainRequest:
    """Return the message that asks for contributions."""
    return ranking_service_pb2.ExplainRequest(
        model=model_version_to_proto(call.model),
        context=context_to_proto(call.context),
        candidates=candidates_to_proto(call.candidates),
        count=call.count,
        task_exponents=dict(call.task_exponents),
    )


def explain_from_proto(message: ranking_service_pb2.ExplainRequest) -> Explaining:
    """Return what asks for contributions; raises `InvalidInput` with every field at fault."""
    with collecting() as at:
        at.child("count").check_between(message.count, 1, MOST_EXPLAINED)
        return Explaining(
            model=read_model_version(message.model, at.child("model")),
            context=read_context(message.context, at.child("context")),
            candidates=read_candidates(message.candidates, at.child("candidates"), at_most=MAX_RANKED),
            count=message.count,
            task_exponents=read_exponents(message.task_exponents, at.child("task_exponents")),
        )


def _read_scoring(
    message: pre_ranking_service_pb2.PreRankRequest | ranking_service_pb2.RankRequest,
    at: Field,
    *,
    at_most: int,
    task_exponents: Mapping[str, float] | None = None,
) -> Scoring:
    return Scoring(
        model=read_model_version(message.model, at.child("model")),
        context=read_context(message.context, at.child("context")),
        candidates=read_candidates(message.candidates, at.child("candidates"), at_most=at_most),
        keep=read_count(message.keep, at.child("keep")),
        task_exponents=task_exponents or {},
        attributes=read_attributes(message.attributes, at.child("attributes")),
        attribute_count=read_count(message.attribute_count, at.child("attribute_count")),
    )


def read_count(count: int, at: Field) -> int:
    """Return a number of candidates; refuses a negative one."""
    at.check(count >= 0, f"must not be negative, but is {count}")
    return count


def read_attributes(names: Sequence[str], at: Field) -> tuple[str, ...]:
    """Return the names of attributes; refuses an empty one."""
    for i, name in enumerate(names):
        at.element(i).check_set(name)
    return tuple(names)


def header_to_proto(answer: StageAnswer) -> pb.StageHeader:
    """Return the header of an answer; the candidates go beside it."""
    return pb.StageHeader(
        shard_id=answer.shard_id,
        model=model_version_to_proto(answer.model),
        queue_time=duration_to_proto(answer.queue_s),
        compute_time=duration_to_proto(answer.compute_s),
    )


def answer_from_proto(message: StageResponse) -> StageAnswer:
    """Return the answer of a stage; raises `InvalidInput` when its candidates are malformed."""
    header = message.header
    return StageAnswer(
        shard_id=header.shard_id,
        model=ModelVersion(header.model.model, header.model.version),
        queue_s=duration_from_proto(header.queue_time),
        compute_s=duration_from_proto(header.compute_time),
        candidates=candidates_from_proto(message.candidates),
    )
