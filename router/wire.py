"""Reads the model that a stage call names off the wire, and leaves the rest of the message undecoded.

Source: the Protocol Buffers encoding guide. Every stage request holds its `ModelVersion` in field 1.
"""

from collections.abc import Iterator

from protos.headrace.v1 import retrieval_service_pb2, types_pb2

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MODEL_FIELD = 1
_NAME_FIELD, _VERSION_FIELD = 1, 2
_MAX_VARINT_BYTES = 10


class MalformedMessage(ValueError):
    """The bytes are no protobuf message."""


def read_model(payload: bytes) -> tuple[str, str]:
    """Return the name and version of the model in field 1; empty where they are absent.

    A repeated field counts as protobuf merges it: the last value wins. Raises `MalformedMessage`.
    """
    found = {_NAME_FIELD: memoryview(b""), _VERSION_FIELD: memoryview(b"")}
    try:
        for number, value in _length_fields(memoryview(payload)):
            if number == _MODEL_FIELD:
                found.update((n, v) for n, v in _length_fields(value) if n in found)
        return bytes(found[_NAME_FIELD]).decode(), bytes(found[_VERSION_FIELD]).decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(str(error)) from None


def with_version(payload: bytes, version: str) -> bytes:
    """Return the request with the model's version set: protobuf merges a repeated message into the first."""
    model = types_pb2.ModelVersion(version=version)
    return payload + retrieval_service_pb2.RetrieveRequest(model=model).SerializeToString()


def _length_fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and bytes of each length-delimited field, and skip all others."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise MalformedMessage("a field has the number 0")
        size = 0
        if wire_type == _VARINT:
            _, at = _read_varint(message, at)
        elif wire_type == _LENGTH:
            size, at = _read_varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise MalformedMessage(f"a field has the wire type {wire_type}")
        if at + size > len(message):
            raise MalformedMessage("it ends inside a field")
        if wire_type == _LENGTH:
            yield number, message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for i, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return number, at + i + 1
    raise MalformedMessage("a number does not end")
