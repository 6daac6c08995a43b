"""The JSON form of a placement, as its snapshot, a router's cache and Consul keep it."""

from google.protobuf.json_format import MessageToJson, Parse, ParseError

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import placement_from_proto, placement_to_proto
from shards.errors import CorruptRecord, InvalidInput
from shards.placement import Placement


def placement_to_json(placement: Placement) -> bytes:
    """Return protobuf's JSON of `headrace.v1.Placement`, indented for people."""
    return MessageToJson(placement_to_proto(placement)).encode()


def placement_from_json(data: bytes, *, store: str, key: str) -> Placement:
    """Return the placement; raises `CorruptRecord`, naming store and key, where it is damaged."""
    try:
        return placement_from_proto(Parse(data, pb.Placement()))
    except (ParseError, UnicodeDecodeError, InvalidInput) as error:
        raise CorruptRecord(store, key, str(error)) from error
