"""What the Python client tells a router of users, with protos alone."""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from protos.headrace.v1 import event_service_pb2


def _new_id() -> str:
    return uuid.uuid4().hex


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a user did to an item, just now if nothing else is said.

    Events of one `event_id` count once: one that is kept and sent again needs the id it had.
    """

    user_id: str
    item_id: str
    action: str
    timestamp_ms: int = field(default_factory=_now_ms)
    event_id: str = field(default_factory=_new_id)
    search_id: str = ""
    """`request_id` of the search whose page had the item, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordResult:
    """How many events were recorded now, and how many were known already."""

    recorded: int
    duplicates: int


def request_of(events: Iterable[Event]) -> event_service_pb2.RecordEventsRequest:
    """Return the message of a request to record events."""
    return event_service_pb2.RecordEventsRequest(
        events=[
            event_service_pb2.UserEvent(
                event_id=event.event_id,
                user_id=event.user_id,
                item_id=event.item_id,
                action=event.action,
                timestamp=timestamp(event.timestamp_ms),
                search_id=event.search_id,
            )
            for event in events
        ]
    )


def result_of(response: event_service_pb2.RecordEventsResponse) -> RecordResult:
    """Return the response as a frozen value."""
    return RecordResult(recorded=response.recorded, duplicates=response.duplicates)


def timestamp(moment_ms: int) -> Timestamp:
    """Return the message of a moment in milliseconds since the epoch."""
    message = Timestamp()
    message.FromMilliseconds(moment_ms)
    return message
