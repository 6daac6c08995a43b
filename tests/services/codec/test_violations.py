"""Each wrong field is named, all of them at once."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from protos.headrace.v1 import cluster_service_pb2, search_service_pb2, types_pb2
from protos.headrace.v1.pre_ranking_service_pb2 import PreRankRequest
from protos.headrace.v1.ranking_service_pb2 import RankRequest
from protos.headrace.v1.retrieval_service_pb2 import RetrieveRequest
from services import codec
from shards.errors import InvalidInput

MODEL = 'model { model: "m" version: "1" }'
CONTEXT = "context { now { seconds: 1 } }"
GOOD_RELEASE = """
    surface: "web" version: "1" merged: 500 retrieval_budget_ms: 300 history_limit: 200
    channels { name: "lexical" model { model: "m" version: "1" } k: 200 weight: 1 }
"""


def violations(read: Callable[[Any], object], message: Message) -> dict[str, str]:
    """Return what is wrong with the message: description by field."""
    with pytest.raises(InvalidInput) as caught:
        read(message)
    return {violation.field: violation.description for violation in caught.value.violations}


def parse(kind: type[Message], text: str) -> Message:
    return text_format.Parse(text, kind())


def test_retrieval_collects_every_violation() -> None:
    message = parse(
        RetrieveRequest,
        """
        k: 10001  attribute_count: -1  attributes: ""
        context {
          user {
            features { key: "age" value { number: nan } }
            history { item_ids: "a" actions: [] timestamps_ms: [3, 2] }
          }
          features { key: "radius" value { number: inf } }
        }
        filter {
          clauses { any_of {} }
          clauses { attribute: "price" range { min: 2 max: 1 } }
          clauses { attribute: "price" range {} }
          clauses { attribute: "price" range { min: nan } }
          clauses { attribute: "colour" }
        }
        """,
    )
    assert violations(codec.retrieve_from_proto, message) == {
        "k": "must be 1 to 10000, not 10001",
        "model.model": "must not be empty",
        "model.version": "must not be empty",
        "context.now": "must be set",
        "context.user.features[age]": "must be a finite number, not nan",
        "context.user.history.actions": "must be as long as item_ids, 1, not 0",
        "context.user.history.timestamps_ms": "must be oldest first",
        "context.features[radius]": "must be a finite number, not inf",
        "filter.clauses[0].attribute": "must not be empty",
        "filter.clauses[0].any_of": "must hold at least one value",
        "filter.clauses[1].range": "must not be empty: min 2 is above max 1",
        "filter.clauses[2].range": "must have an end: min or max",
        "filter.clauses[3].range.min": "must be a finite number, not nan",
        "filter.clauses[4]": "must have a condition: any_of or range",
        "attributes[0]": "must not be empty",
        "attribute_count": "must not be negative, but is -1",
    }


@pytest.mark.parametrize("k", [1, 10_000])
def test_k_at_its_limits(k: int) -> None:
    message = text_format.Parse(f"{MODEL} {CONTEXT} k: {k}", RetrieveRequest())
    assert codec.retrieve_from_proto(message).k == k


@pytest.mark.parametrize("k", [-1, 0, 10_001])
def test_k_beyond_its_limits(k: int) -> None:
    message = parse(RetrieveRequest, f"{MODEL} {CONTEXT} k: {k}")
    assert list(violations(codec.retrieve_from_proto, message)) == ["k"]


def test_candidates() -> None:
    message = parse(
        RankRequest,
        f"""{MODEL} {CONTEXT} keep: -1
        candidates {{
          item_ids: ["a", "b", "a", ""]
          columns {{ name: "x" values: [1, 2, 3, 4] }}
          columns {{ name: "x" values: [1, 2, 3, inf] }}
          columns {{ name: "" values: [1, 2] }}
          attributes {{ name: "title" values: ["1", "2", "3", "4", "5"] }}
        }}
        task_exponents {{ key: "purchase" value: nan }}
        """,
    )
    assert violations(codec.rank_from_proto, message) == {
        "task_exponents[purchase]": "must be a finite number, not nan",
        "candidates.item_ids": "must not repeat 'a'",
        "candidates.columns[1].name": "must not repeat 'x'",
        "candidates.columns[1].values": "must not hold an infinity",
        "candidates.columns[2].name": "must not be empty",
        "candidates.columns[2].values": "must be as long as item_ids, 4, not 2",
        "candidates.attributes[0].values": "must not be longer than item_ids, 4, not 5",
        "keep": "must not be negative, but is -1",
    }


def test_empty_item_id() -> None:
    message = types_pb2.Candidates(item_ids=["", "a"])
    assert violations(codec.candidates_from_proto, message) == {
        "candidates.item_ids": "must not hold an empty id"
    }


@pytest.mark.parametrize(
    ("read", "kind", "most"),
    [(codec.rank_from_proto, RankRequest, 5_000), (codec.pre_rank_from_proto, PreRankRequest, 20_000)],
)
def test_too_many_candidates(read: Callable[[Any], codec.Scoring], kind: type[Message], most: int) -> None:
    message: Any = parse(kind, f"{MODEL} {CONTEXT}")
    message.candidates.item_ids.extend(map(str, range(most)))
    assert len(read(message).candidates) == most
    message.candidates.item_ids.append("one more")
    assert violations(read, message) == {
        "candidates.item_ids": f"must hold at most {most} items, not {most + 1}"
    }


def test_search_of_nothing_by_nobody() -> None:
    message = search_service_pb2.SearchRequest(query="  ", page_size=0)
    assert violations(codec.search_from_proto, message) == {
        "surface": "must not be empty",
        "query": "must not be empty when user_id is",
        "user_id": "must not be empty when query is",
        "page_size": "must be 1 to 500, not 0",
    }


def test_search_fields() -> None:
    message = search_service_pb2.SearchRequest(
        surface="web", query="é" * 1001, page_size=501, contributions=51
    )
    message.now.seconds = 10**15
    message.context["age"].number = math.nan
    message.filter.clauses.add()
    assert sorted(violations(codec.search_from_proto, message)) == [
        "context[age]",
        "contributions",
        "filter.clauses[0]",
        "filter.clauses[0].attribute",
        "now",
        "page_size",
        "query",
    ]


def test_search_defaults() -> None:
    message = search_service_pb2.SearchRequest(surface="web", query="é" * 1000)
    assert codec.search_from_proto(message) == codec.SearchRequest(surface="web", query="é" * 1000)


def test_unset_feature_is_missing() -> None:
    message = search_service_pb2.SearchRequest(surface="web", user_id="u")
    message.context["age"].SetInParent()
    assert codec.search_from_proto(message).context == {}


def test_good_release() -> None:
    release = codec.release_from_proto(text_format.Parse(GOOD_RELEASE, cluster_service_pb2.Release()))
    assert (release.surface, release.gate.mode, release.ranker) == ("web", "rules", None)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", ["channels", "merged", "retrieval_budget_ms", "surface", "version"]),
        (f'{GOOD_RELEASE} gate {{ mode: "maybe" item_id_pattern: "(" min_query_chars: -1 }}',
         ["gate.item_id_pattern", "gate.min_query_chars", "gate.mode"]),
        (f'{GOOD_RELEASE} channels {{ name: "lexical" k: 0 quota: -1 weight: nan }}',
         ["channels[1].k", "channels[1].model.model", "channels[1].model.version", "channels[1].name",
          "channels[1].quota", "channels[1].weight"]),
        (f"{GOOD_RELEASE} ranker {{ {MODEL} candidates: 5001 }}", ["ranker.budget_ms", "ranker.candidates"]),
        (f"{GOOD_RELEASE} pre_ranker {{ {MODEL} candidates: 20001 budget_ms: 9 }}",
         ["pre_ranker.candidates"]),
        (f'{GOOD_RELEASE} task_exponents {{ key: "click" value: inf }}', ["task_exponents[click]"]),
        (f'{GOOD_RELEASE} diversity {{ relevance: nan candidates: 501 attributes: "" }}',
         ["diversity.attributes[0]", "diversity.candidates", "diversity.relevance"]),
        (f"{GOOD_RELEASE} diversity {{ relevance: 0.5 quotas {{ within: -1 }} }}",
         ["diversity.attributes", "diversity.quotas[0].at_most", "diversity.quotas[0].attribute",
          "diversity.quotas[0].within"]),
    ],
)  # fmt: skip
def test_bad_releases(text: str, fields: list[str]) -> None:
    message = parse(cluster_service_pb2.Release, text)
    found = violations(codec.release_from_proto, message)
    assert sorted(found) == [f"release.{field}" for field in fields]


def test_placement_names_the_release_and_the_assignment() -> None:
    message = parse(
        cluster_service_pb2.Placement,
        f"assignments {{ {MODEL} }} releases {{ {GOOD_RELEASE.replace('merged: 500', '')} }}",
    )
    assert list(violations(codec.placement_from_proto, message)) == [
        "placement.assignments[0].stage",
        "placement.releases[0].merged",
    ]
