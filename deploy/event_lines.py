"""Events as lines of JSON: what `headrace events record` reads."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from router.client_events import Event
from shards.errors import FieldViolation, InvalidInput

_WORDS = ("event_id", "user_id", "item_id", "action")
_FIELDS = frozenset({*_WORDS, "timestamp"})
_SEARCH = "search_id"


def batches(lines: Iterable[str], size: int) -> Iterator[list[Event]]:
    """Yield the events of the lines, `size` at a time; empty lines are skipped.

    A line is an object of event_id, user_id, item_id, action and timestamp, and of search_id where the search
    is known. Raises `InvalidInput` naming the
    line; the batches before it have been given.
    """
    batch: list[Event] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            batch.append(_event(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(FieldViolation(f"line {number}", str(error))) from error
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def moment_ms(told: object) -> int:
    """Return the moment in ISO 8601, UTC where it names no zone, or in milliseconds since the epoch.

    Raises ValueError for what is neither.
    """
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    if not isinstance(told, str):
        raise ValueError(f"timestamp {told!r} is neither ISO 8601 nor milliseconds since 1970")
    moment = datetime.fromisoformat(told)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _event(told: Any) -> Event:
    if not isinstance(told, dict):
        raise ValueError("is no object")
    told = {_SEARCH: "", **told}
    known = _FIELDS | {_SEARCH}
    if told.keys() != known:
        missing, unknown = sorted(known - told.keys()), sorted(told.keys() - known)
        raise ValueError(
            "; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("lacks", missing), ("has the unknown", unknown))
                if names
            )
        )
    words = (*_WORDS, _SEARCH)
    for name in words:
        if not isinstance(told[name], str):
            raise ValueError(f"{name} {told[name]!r} is no text")
    return Event(**{name: told[name] for name in words}, timestamp_ms=moment_ms(told["timestamp"]))
