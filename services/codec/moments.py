"""Moments and durations: protobuf's types from and to milliseconds since the epoch and seconds."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.codec.violations import Field

_EARLIEST_S = -62_135_596_800
_LATEST_S = 253_402_300_799


def timestamp_to_proto(moment_ms: int) -> Timestamp:
    """Return the timestamp of a moment in milliseconds since the epoch."""
    seconds, millis = divmod(moment_ms, 1000)
    return Timestamp(seconds=seconds, nanos=millis * 1_000_000)


def timestamp_from_proto(message: Timestamp) -> int:
    """Return the moment in whole milliseconds since the epoch, rounded down."""
    return message.seconds * 1000 + message.nanos // 1_000_000


def read_timestamp(message: Timestamp, field: Field) -> int:
    """Return the moment in milliseconds; refuses one outside the years 1 to 9999."""
    valid = _EARLIEST_S <= message.seconds <= _LATEST_S and 0 <= message.nanos < 1_000_000_000
    field.check(valid, "must be a moment of the years 1 to 9999")
    return timestamp_from_proto(message)


def duration_to_proto(seconds: float) -> Duration:
    """Return the duration of so many seconds."""
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def duration_from_proto(message: Duration) -> float:
    """Return the duration in seconds."""
    return message.seconds + message.nanos / 1e9
