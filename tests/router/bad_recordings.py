"""Requests to record events that must be refused, and the fields that must be named."""

import time
from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from protos.headrace.v1.event_service_pb2 import RecordEventsRequest, UserEvent
from tests.router.bad_requests import Case

RECORD = "/headrace.v1.EventService/RecordEvents"


def told(**changed: Any) -> UserEvent:
    fields = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "action": "click"}
    return UserEvent(**{"timestamp": Timestamp(seconds=1_288_000_000), **fields, **changed})


def request(events: Iterable[UserEvent]) -> RecordEventsRequest:
    return RecordEventsRequest(events=events)


def _case(name: str, *fields: str, **changed: Any) -> Case:
    good = told(event_id="good")
    named = [f"events[1].{field}" for field in fields]
    return Case(name=f"event: {name}", path=RECORD, request=request([good, told(**changed)]), fields=named)


RECORDINGS = [
    Case(name="no event", path=RECORD, request=request([]), fields=["events"]),
    Case(
        name="too many events",
        path=RECORD,
        request=request(told(event_id=f"e{number}") for number in range(1_001)),
        fields=["events"],
    ),
    Case(name="no message", path=RECORD, request=b"\xff", fields=["request"]),
    _case(
        "empty", *("event_id", "user_id", "item_id", "action"), event_id="", user_id="", item_id="", action=""
    ),
    _case(
        "overlong ids",
        *("event_id", "user_id", "item_id"),
        event_id="é" * 256,
        user_id="u" * 512,
        item_id="i" * 512,
    ),
    _case("overlong action", "action", action="a" * 65),
    _case("NULs", "event_id", "item_id", "action", event_id="\0", item_id="i\0", action="\0a"),
    _case("no moment", "timestamp", timestamp=None),
    _case("moment zero", "timestamp", timestamp=Timestamp()),
    _case("before 1970", "timestamp", timestamp=Timestamp(seconds=-1)),
    _case("tomorrow", "timestamp", timestamp=Timestamp(seconds=int(time.time()) + 86_400)),
    _case("milliseconds for seconds", "timestamp", timestamp=Timestamp(seconds=1_288_000_000_000)),
    _case("a second of two", "timestamp", timestamp=Timestamp(seconds=1, nanos=1_000_000_000)),
    _case("an id that comes twice", "event_id", event_id="good"),
]
