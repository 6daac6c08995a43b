"""Bad requests, and what the caller of each must get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from protos.headrace.v1 import (
    pre_ranking_service_pb2,
    ranking_service_pb2,
    retrieval_service_pb2,
    search_service_pb2,
)
from protos.headrace.v1 import types_pb2 as pb
from router.stage_client import PRE_RANK, RANK, RETRIEVE
from tests.shards.bundles import SURFACE

SEARCH = "/headrace.v1.SearchService/Search"
LOAD = "/headrace.v1.ShardService/LoadModel"

NAN, INFINITY = float("nan"), float("inf")
BAD, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A bad request and what its caller must get: the code, the reason and the fields at fault."""

    name: str
    path: str = SEARCH
    request: Message | bytes
    code: grpc.StatusCode = BAD
    reason: str = "INVALID_INPUT"
    fields: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def search(**changed: Any) -> search_service_pb2.SearchRequest:
    return search_service_pb2.SearchRequest(**{"surface": SURFACE, "query": "red mug", **changed})


def clause(**fields: Any) -> pb.Filter:
    return pb.Filter(clauses=[pb.FilterClause(**fields)])


CONTEXT = pb.SearchContext(query="red mug", now=Timestamp(seconds=1_288_000_000))


def model(name: str, version: str = "1") -> pb.ModelVersion:
    return pb.ModelVersion(model=name, version=version)


def retrieve(name: str = "lexical", **changed: Any) -> retrieval_service_pb2.RetrieveRequest:
    fields: dict[str, Any] = {"model": model(name), "context": CONTEXT, "k": 5}
    return retrieval_service_pb2.RetrieveRequest(**fields | changed)


def pre_rank(candidates: pb.Candidates, **changed: Any) -> pre_ranking_service_pb2.PreRankRequest:
    fields: dict[str, Any] = {"model": model("pre_ranker"), "context": CONTEXT, "candidates": candidates}
    return pre_ranking_service_pb2.PreRankRequest(**fields | changed)


def rank(candidates: pb.Candidates, **changed: Any) -> ranking_service_pb2.RankRequest:
    fields: dict[str, Any] = {"model": model("ranker"), "context": CONTEXT, "candidates": candidates}
    return ranking_service_pb2.RankRequest(**fields | changed)


def items(count: int) -> pb.Candidates:
    return pb.Candidates(item_ids=[f"item-{row:05d}" for row in range(count)])


def column(name: str, *values: float) -> pb.Candidates:
    return pb.Candidates(item_ids=["item-001"], columns=[pb.FloatColumn(name=name, values=values)])


SEARCHES = [
    Case(name="no surface", request=search(surface=""), fields=["surface"]),
    Case(name="page of none", request=search(page_size=0), fields=["page_size"]),
    Case(name="negative page", request=search(page_size=-1), fields=["page_size"]),
    Case(name="page too long", request=search(page_size=501), fields=["page_size"]),
    Case(name="query too long", request=search(query="q" * 1001), fields=["query"]),
    Case(name="nobody asks nothing", request=search(query=" "), fields=["query", "user_id"]),
    Case(
        name="NaN in a feature",
        request=search(context={"age": pb.FeatureValue(number=NAN)}),
        fields=["context[age]"],
    ),
    Case(
        name="infinity in a feature",
        request=search(context={"age": pb.FeatureValue(number=-INFINITY)}),
        fields=["context[age]"],
    ),
    Case(
        name="NaN in a filter",
        request=search(filter=clause(attribute="price_gbp", range=pb.NumberRange(min=NAN))),
        fields=["filter.clauses[0].range.min"],
    ),
    Case(
        name="filter on nothing",
        request=search(filter=clause(any_of=pb.TextList(values=["red"]))),
        fields=["filter.clauses[0].attribute"],
    ),
    Case(
        name="filter without a condition",
        request=search(filter=clause(attribute="colour")),
        fields=["filter.clauses[0]"],
    ),
    Case(
        name="filter that nothing satisfies",
        request=search(filter=clause(attribute="price_gbp", range=pb.NumberRange(min=2, max=1))),
        fields=["filter.clauses[0].range"],
    ),
    Case(
        name="filter on an unknown attribute, which only shards can tell",
        request=search(filter=clause(attribute="taste", any_of=pb.TextList(values=["sweet"]))),
        fields=["filter.clauses[0].attribute"],
    ),
    Case(name="a moment that is none", request=search(now=Timestamp(nanos=-5)), fields=["now"]),
    Case(
        name="all mistakes at once",
        request=search(surface="", query="q" * 1001, page_size=0, filter=clause(attribute="colour")),
        fields=["surface", "query", "page_size", "filter.clauses[0]"],
    ),
    Case(name="bytes that are no search", request=b"\x0a\xff", fields=["request"]),
    Case(
        name="unknown surface",
        request=search(surface="books"),
        code=MISSING,
        reason="SURFACE_NOT_FOUND",
        metadata={"kind": "surface", "name": "books"},
    ),
]

STAGE_CALLS = [
    Case(name="no model", path=RETRIEVE, request=retrieve(model=model("", "")), fields=["model.model"]),
    Case(
        name="unknown model",
        path=RETRIEVE,
        request=retrieve("ghost", model=model("ghost", "")),
        code=MISSING,
        reason="MODEL_NOT_FOUND",
        metadata={"name": "ghost"},
    ),
    Case(
        name="unknown version",
        path=RANK,
        request=rank(items(1), model=model("ranker", "99")),
        code=MISSING,
        reason="MODEL_NOT_FOUND",
        metadata={"name": "ranker@99"},
    ),
    Case(name="model of another stage", path=RETRIEVE, request=retrieve("ranker"), fields=["model"]),
    Case(name="no message at all", path=PRE_RANK, request=b"\x0a\xff", fields=["model"]),
    Case(name="none wanted", path=RETRIEVE, request=retrieve(k=0), fields=["k"]),
    Case(name="too many wanted", path=RETRIEVE, request=retrieve(k=10_001), fields=["k"]),
    Case(
        name="no moment", path=RETRIEVE, request=retrieve(context=pb.SearchContext()), fields=["context.now"]
    ),
    Case(
        name="too many to pre-rank",
        path=PRE_RANK,
        request=pre_rank(items(20_001)),
        fields=["candidates.item_ids"],
    ),
    Case(name="too many to rank", path=RANK, request=rank(items(5_001)), fields=["candidates.item_ids"]),
    Case(
        name="the same candidate twice",
        path=RANK,
        request=rank(pb.Candidates(item_ids=["item-001", "item-001"])),
        fields=["candidates.item_ids"],
    ),
    Case(
        name="column of another length",
        path=RANK,
        request=rank(column("lexical.score", 1.0, 2.0)),
        fields=["candidates.columns[0].values"],
    ),
    Case(
        name="infinity in a column",
        path=PRE_RANK,
        request=pre_rank(column("lexical.score", INFINITY)),
        fields=["candidates.columns[0].values"],
    ),
    Case(
        name="NaN in a user's feature",
        path=RANK,
        request=rank(
            items(1),
            context=pb.SearchContext(
                now=CONTEXT.now, user=pb.UserState(features={"age": pb.FeatureValue(number=NAN)})
            ),
        ),
        fields=["context.user.features[age]"],
    ),
    Case(
        name="NaN for an exponent",
        path=RANK,
        request=rank(items(1), task_exponents={"click": NAN}),
        fields=["task_exponents[click]"],
    ),
    Case(
        name="unknown task, which only shards can tell",
        path=RANK,
        request=rank(items(1), task_exponents={"like": 1.0}),
        fields=["task_exponents[like]"],
    ),
    Case(
        name="unknown attribute to return",
        path=RETRIEVE,
        request=retrieve(attributes=["taste"], attribute_count=5),
        fields=["attributes[0]"],
    ),
]
