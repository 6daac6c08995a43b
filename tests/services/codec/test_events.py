import pytest

from protos.headrace.v1.event_service_pb2 import RecordEventsRequest, UserEvent
from services import user_history
from services.codec import events_from_proto, timestamp_to_proto
from shards.errors import InvalidInput

NOW_MS = 1_288_000_000_000
AHEAD_MS = 600_000


def told(timestamp_ms: int, event_id: str = "e1") -> UserEvent:
    return UserEvent(
        event_id=event_id,
        user_id="ü",
        item_id="i1",
        action="click",
        timestamp=timestamp_to_proto(timestamp_ms),
    )


@pytest.mark.parametrize(
    ("told_ms", "counts_as_ms"),
    [
        (1, 1),
        (NOW_MS - 1, NOW_MS - 1),
        (NOW_MS, NOW_MS - 1),
        (NOW_MS + AHEAD_MS, NOW_MS - 1),
    ],
)
def test_an_event_is_no_later_than_just_before_it_came(told_ms: int, counts_as_ms: int) -> None:
    events = events_from_proto(RecordEventsRequest(events=[told(told_ms)]), NOW_MS)
    event = user_history.UserEvent(user_id="ü", item_id="i1", action="click", timestamp_ms=counts_as_ms)
    assert events == {"e1": event}


@pytest.mark.parametrize("told_ms", [0, -1, NOW_MS + AHEAD_MS + 1])
def test_a_moment_beyond_belief_is_refused(told_ms: int) -> None:
    request = RecordEventsRequest(events=[told(1), told(told_ms, "e2")])
    with pytest.raises(InvalidInput) as caught:
        events_from_proto(request, NOW_MS)
    assert [violation.field for violation in caught.value.violations] == ["events[1].timestamp"]


def test_events_keep_the_order_in_which_they_came() -> None:
    request = RecordEventsRequest(events=[told(5, f"e{n}") for n in (3, 1, 2)])
    assert list(events_from_proto(request, NOW_MS)) == ["e3", "e1", "e2"]
