import json
from typing import Any

import pytest

from deploy.event_lines import batches, moment_ms
from router.client import Event
from shards.errors import InvalidInput

LINE = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "action": "click", "timestamp": 1_288_000_000_000}


def line(**changed: Any) -> str:
    return json.dumps(LINE | changed) + "\n"


def test_lines_come_in_batches() -> None:
    lines = [line(event_id=f"e{number}") for number in range(5)]
    given = list(batches([lines[0], "\n", *lines[1:]], 2))
    assert [[event.event_id for event in batch] for batch in given] == [["e0", "e1"], ["e2", "e3"], ["e4"]]
    assert given[0][0] == Event(
        event_id="e0", user_id="u1", item_id="i1", action="click", timestamp_ms=1_288_000_000_000
    )
    assert list(batches([], 2)) == []


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        (1_288_000_000_000, 1_288_000_000_000),
        ("2010-10-25T09:46:40Z", 1_288_000_000_000),
        ("2010-10-25T09:46:40.123", 1_288_000_000_123),
        ("2010-10-25T11:46:40+02:00", 1_288_000_000_000),
    ],
)
def test_moments_are_iso_8601_or_milliseconds(told: object, moment: int) -> None:
    assert moment_ms(told) == moment


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", "line 2: Expecting"),
        ("[]", "line 2: is no object"),
        (line(extra=1), "line 2: has the unknown extra"),
        (
            '{"event_id": "e1", "userid": "u"}',
            "lacks action, item_id, timestamp, user_id; has the unknown userid",
        ),
        (line(user_id=7), "line 2: user_id 7 is no text"),
        (line(timestamp=None), "line 2: timestamp None is neither"),
        (line(timestamp=True), "line 2: timestamp True is neither"),
        (line(timestamp="noon"), "line 2: Invalid isoformat"),
    ],
)
def test_a_line_that_is_no_event_is_named(bad: str, problem: str) -> None:
    given = batches([line(), bad], 1)
    assert [event.event_id for event in next(given)] == ["e1"]
    with pytest.raises(InvalidInput, match=problem):
        next(given)
