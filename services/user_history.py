"""Events of users, put in order: pure, and the same for every store."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter

from shards.errors import FieldViolation, InvalidInput
from shards.search_context import History, RawValue, UserState

MAX_ID_BYTES = 511
"""Of a user's id in UTF-8; LMDB's keys are no longer."""

JOINT = "\0"
"""Stands between the words of a record, and so in none of them."""

MAX_ACTIONS = 65_535
"""Different ones in the history of a user; the code of each has two bytes."""

MAX_EVENTS = 1_000
"""That are recorded at once."""

KEPT_EVENTS = 1_000
KEPT_EVENT_IDS = 1_000_000
_MOST_KEPT_EVENTS = 50_000
"""Fewer than a record can tell actions apart."""

_MOST_MS = 2**53
"""From here on, Redis's scores are not exact; it is the year 287,396."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent:
    """Something a user did to an item."""

    user_id: str
    item_id: str
    action: str
    timestamp_ms: int
    search_id: str = ""
    """The search that showed the item, where that is known; stores do not keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLimits:
    """What a store keeps of the events that it records.

    The newest `events` of each user, and the newest `event_ids` of all users, by which it knows an event that
    comes again. All that write to one store should agree.
    """

    events: int = KEPT_EVENTS
    event_ids: int = KEPT_EVENT_IDS

    def __post_init__(self) -> None:
        if not 1 <= self.events <= _MOST_KEPT_EVENTS:
            raise ValueError(f"1 to {_MOST_KEPT_EVENTS:,} events of a user can be kept, not {self.events:,}")
        if self.event_ids < MAX_EVENTS:
            raise ValueError(f"at least {MAX_EVENTS:,} event ids must be kept, not {self.event_ids:,}")


DEFAULT_LIMITS = EventLimits()


def gathered(users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> Iterator[UserState]:
    """Yield every user named in `users` or in `events`, with all that is said of them."""
    by_user = histories(events)
    for user_id in dict.fromkeys((*users, *by_user)):
        yield checked(
            UserState(
                user_id=user_id,
                features=users.get(user_id, {}),
                history=by_user.get(user_id, History()),
            )
        )


def histories(events: Iterable[UserEvent]) -> dict[str, History]:
    """Return the events of each user in order of time; those of one moment as they came."""
    by_user: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for event in events:
        by_user[event.user_id].append((event.item_id, event.action, event.timestamp_ms))
    return {user_id: _in_order(rows) for user_id, rows in by_user.items()}


def extended(user: UserState, new: History, *, keep: int) -> UserState:
    """Return the user with these events, too, and of all the newest `keep`; raises as `checked` does."""
    checked(UserState(user_id=user.user_id, history=new))
    rows = [*rows_of(user.history), *rows_of(new)]
    return replace(user, history=_in_order(rows).before(_MOST_MS, limit=keep))


def with_features(user: UserState, features: Mapping[str, RawValue]) -> UserState:
    """Return the user with these features beside the others; raises as `checked` does."""
    return checked(replace(user, features={**user.features, **features}))


def rows_of(history: History) -> Iterator[tuple[str, str, int]]:
    """Yield (item id, action, timestamp in ms) of each event, oldest first."""
    return zip(history.item_ids, history.actions, history.timestamps_ms, strict=True)


def checked(user: UserState) -> UserState:
    """Return the user; raises `InvalidInput` for one that some store could not hold."""
    size_bytes = len(user.user_id.encode())
    if not 0 < size_bytes <= MAX_ID_BYTES:
        raise InvalidInput(
            FieldViolation("user_id", f"must have 1 to {MAX_ID_BYTES} bytes, not {size_bytes}")
        )
    if problem := _problem_of(user):
        raise InvalidInput(FieldViolation(f"users[{user.user_id}]", problem))
    return user


def _problem_of(user: UserState) -> str:
    history = user.history
    actions = set(history.actions)
    if any(JOINT in word for word in (*actions, *history.item_ids)):
        return "an id or an action holds a NUL"
    if len(actions) > MAX_ACTIONS:
        return f"{len(actions)} different actions are too many"
    if any(abs(moment_ms) >= _MOST_MS for moment_ms in history.timestamps_ms):
        return "a moment is out of range"
    try:
        features_to_json(user.features)
    except ValueError as error:
        return str(error)
    return ""


def features_to_json(features: Mapping[str, RawValue]) -> bytes:
    """Return the features as JSON; raises ValueError for a number that is not finite."""
    return json.dumps(dict(features), allow_nan=False, ensure_ascii=False).encode()


def features_from_json(encoded: bytes) -> dict[str, RawValue]:
    """Return the features; raises ValueError for what is none."""
    raw: Mapping[str, str | float | list[str]] = json.loads(encoded)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def _in_order(rows: list[tuple[str, str, int]]) -> History:
    """Return the rows as a history; events of one moment stay in the order they came."""
    item_ids, actions, timestamps_ms = zip(*sorted(rows, key=itemgetter(2)), strict=True)
    return History(item_ids, actions, timestamps_ms)
