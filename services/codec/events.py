"""Fresh events: what a frontend tells a router of its users."""

from protos.headrace.v1 import event_service_pb2 as pb
from services.codec.moments import timestamp_from_proto
from services.codec.violations import Field, collecting
from services.user_history import JOINT, MAX_EVENTS, MAX_ID_BYTES, UserEvent
from services.user_store import Recorded

MAX_ACTION_BYTES = 64
MAX_AHEAD_MS = 600_000
"""How far the clock of who saw an event may be ahead of the router's: ten minutes."""


def events_from_proto(message: pb.RecordEventsRequest, now_ms: int) -> dict[str, UserEvent]:
    """Return the events by their ids; raises `InvalidInput` with every field at fault.

    An event from a clock that is ahead counts as having happened just now, so that a search that comes
    next, which sees what was before it, sees the event.
    """
    with collecting() as at:
        return _read_events(message, at.child("events"), now_ms)


def _read_events(message: pb.RecordEventsRequest, field: Field, now_ms: int) -> dict[str, UserEvent]:
    if not field.check(
        1 <= len(message.events) <= MAX_EVENTS, f"must be 1 to {MAX_EVENTS:,}, not {len(message.events):,}"
    ):
        return {}
    events: dict[str, UserEvent] = {}
    indices: dict[str, int] = {}
    for index, told in enumerate(message.events):
        at = field.element(index)
        first = indices.setdefault(told.event_id, index)
        if _read_word(told.event_id, at.child("event_id")):
            at.child("event_id").check(first == index, f"is that of events[{first}], too")
        events[told.event_id] = _read_event(told, at, now_ms)
    return events


def _read_event(told: pb.UserEvent, at: Field, now_ms: int) -> UserEvent:
    _read_word(told.user_id, at.child("user_id"))
    _read_word(told.item_id, at.child("item_id"))
    _read_word(told.action, at.child("action"), MAX_ACTION_BYTES)
    if told.search_id:
        _read_word(told.search_id, at.child("search_id"))
    return UserEvent(
        user_id=told.user_id,
        item_id=told.item_id,
        action=told.action,
        timestamp_ms=min(_read_moment(told, at.child("timestamp"), now_ms), now_ms - 1),
        search_id=told.search_id,
    )


def _read_word(word: str, field: Field, most_bytes: int = MAX_ID_BYTES) -> bool:
    size_bytes = len(word.encode())
    return (
        field.check_set(word)
        and field.check(size_bytes <= most_bytes, f"must have at most {most_bytes} bytes, not {size_bytes}")
        and field.check(JOINT not in word, "must not hold a NUL")
    )


def _read_moment(told: pb.UserEvent, field: Field, now_ms: int) -> int:
    if not field.check(told.HasField("timestamp"), "must be set"):
        return 0
    moment_ms = timestamp_from_proto(told.timestamp)
    field.check(
        0 < moment_ms <= now_ms + MAX_AHEAD_MS and 0 <= told.timestamp.nanos < 1_000_000_000,
        "must be a moment after the beginning of 1970, at most ten minutes ahead of the router's clock",
    )
    return moment_ms


def recorded_to_proto(recorded: Recorded) -> pb.RecordEventsResponse:
    """Return the message that says what became of the events."""
    return pb.RecordEventsResponse(recorded=recorded.recorded, duplicates=recorded.duplicates)
