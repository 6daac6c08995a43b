from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.headrace.v1 import pre_ranking_service_pb2, ranking_service_pb2, retrieval_service_pb2, types_pb2
from router.wire import MalformedMessage, read_model, with_version

names = st.text(max_size=200)


def request(model: str, version: str, query: str = "", k: int = 0) -> bytes:
    message = retrieval_service_pb2.RetrieveRequest(
        model=types_pb2.ModelVersion(model=model, version=version),
        context=types_pb2.SearchContext(query=query),
        k=k,
    )
    return message.SerializeToString()


@given(names, names, names, st.integers(-(2**31), 2**31 - 1))
def test_the_model_is_read_among_other_fields(model: str, version: str, query: str, k: int) -> None:
    assert read_model(request(model, version, query, k)) == (model, version)


@given(names, names, names, names)
def test_repeated_models_merge_as_protobuf_merges_them(a: str, b: str, c: str, d: str) -> None:
    payload = request(a, b) + request(c, d)
    merged = retrieval_service_pb2.RetrieveRequest.FromString(payload).model
    assert read_model(payload) == (merged.model, merged.version)


@pytest.mark.parametrize(
    "kind",
    [
        retrieval_service_pb2.RetrieveRequest,
        pre_ranking_service_pb2.PreRankRequest,
        ranking_service_pb2.RankRequest,
    ],
)
def test_a_version_is_added_to_every_kind_of_request(
    kind: type[retrieval_service_pb2.RetrieveRequest],
) -> None:
    message = kind(
        model=types_pb2.ModelVersion(model="m"),
        context=types_pb2.SearchContext(query="mug"),
        attributes=["a"],
    )
    versioned = kind.FromString(with_version(message.SerializeToString(), "v7"))
    message.model.version = "v7"
    assert versioned == message


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    with suppress(MalformedMessage):
        model, version = read_model(payload)
        assert isinstance(model + version, str)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\x0a\x05abc", "ends inside a field"),
        (b"\x0a", "does not end"),
        (b"\xff" * 12, "does not end"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x0a\x03\x0a\x01\xff", "can't decode"),
        (b"\x15\x00", "ends inside a field"),
    ],
)
def test_what_is_no_message_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(MalformedMessage, match=problem):
        read_model(payload)


def test_a_truncated_request_is_refused_or_lacks_its_end() -> None:
    payload = request("tower", "2024", "red mug", 7)
    for end in range(len(payload)):
        try:
            model, version = read_model(payload[:end])
        except MalformedMessage:
            continue
        assert (model, version) in {("", ""), ("tower", "2024")}


def test_nothing_names_no_model() -> None:
    assert read_model(b"") == ("", "")
