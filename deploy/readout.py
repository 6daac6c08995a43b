"""What users did after searches that different releases answered: a canary beside what is live.

An event counts for the search that it names. One that names none counts for the user's last search within the
window before it whose page had the item. A share is that of searches with at least one such event. Searches
of one user depend on each other, so users are what varies: the standard error of a share is that of a ratio
of sums over users (Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018).
"""

import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_Z_95 = 1.96

_FIELDS = {
    "search": {"at_ms", "id", "user", "surface", "release", "pinned", "items"},
    "event": {"at_ms", "id", "user", "item", "action", "search"},
}


@dataclass(slots=True, kw_only=True)
class Search:
    """A search that was answered, and the actions that followed from it."""

    at_ms: int
    user: str
    release: str
    items: frozenset[str]
    actions: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of searches and half its 95 % interval."""

    value: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one release did."""

    release: str
    searches: int
    users: int
    shares: Mapping[str, Share]
    """By action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much larger a share of one arm is than that of the base, and half its 95 % interval."""

    release: str
    action: str
    value: float
    error: float

    @property
    def sure(self) -> bool:
        """Return whether chance does not explain it."""
        return abs(self.value) > self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """The arms of a surface, the base first, and what was left out."""

    surface: str
    base: str
    since_ms: int
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    visitors: int
    """Searches without a user, whom no share decides on."""
    pinned: int
    """Searches that asked for a release by its name."""
    switched: int
    """Users who met several releases."""
    unread: int
    """Lines that are none."""


def read_lines(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return what routers wrote down, and how many lines could not be read."""
    found, unread = [], 0
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    told = json.loads(line)
                except (ValueError, RecursionError):
                    unread += 1
                    continue
                if isinstance(told, dict) and told.keys() >= _FIELDS.get(str(told.get("kind")), {""}):
                    found.append(told)
                else:
                    unread += 1
    return found, unread


def readout(
    lines: Iterable[Mapping[str, Any]],
    surface: str,
    actions: Sequence[str],
    *,
    window_ms: int,
    base: str = "",
    since_ms: int | None = None,
    unread: int = 0,
) -> Readout:
    """Return what the releases of a surface did; without `since_ms` from when the last of them came in.

    `base` is what the others are compared with; by default the release that answered most searches.
    """
    searches: dict[str, Search] = {}
    events: dict[str, Mapping[str, Any]] = {}
    visitors = pinned = 0
    for line in lines:
        if line["kind"] == "event":
            events[str(line["id"])] = line
        elif line["surface"] == surface:
            if since_ms is not None and line["at_ms"] < since_ms:
                continue
            visitors += not line["user"]
            pinned += bool(line["pinned"])
            if line["user"] and not line["pinned"]:
                searches[str(line["id"])] = _search(line)
    began_ms = _began_ms(searches.values()) if since_ms is None else since_ms
    kept = {name: search for name, search in searches.items() if search.at_ms >= began_ms}
    _attribute(kept, events.values(), window_ms)
    by_user = _by_user(kept.values())
    switched = {user for user, own in by_user.items() if len({s.release for s in own}) > 1}
    arms = _arms({user: own for user, own in by_user.items() if user not in switched}, actions)
    most = max(arms, key=lambda arm: arm.searches).release if arms else ""
    first = base or most
    ordered = sorted(arms, key=lambda arm: (arm.release != first, arm.release))
    return Readout(
        surface=surface,
        base=first,
        since_ms=began_ms,
        arms=tuple(ordered),
        differences=tuple(_differences(ordered, first, actions)),
        visitors=visitors,
        pinned=pinned,
        switched=len(switched),
        unread=unread,
    )


def _search(line: Mapping[str, Any]) -> Search:
    return Search(
        at_ms=line["at_ms"], user=line["user"], release=line["release"], items=frozenset(line["items"])
    )


def _began_ms(searches: Iterable[Search]) -> int:
    """Return when the last of the releases answered for the first time."""
    first: dict[str, int] = {}
    for search in searches:
        first[search.release] = min(search.at_ms, first.get(search.release, search.at_ms))
    return max(first.values(), default=0)


def _attribute(searches: Mapping[str, Search], events: Iterable[Mapping[str, Any]], window_ms: int) -> None:
    """Add each event's action to the search that it counts for, if there is one."""
    by_user = _by_user(searches.values())
    for event in events:
        found = searches.get(event["search"]) if event["search"] else None
        if not event["search"]:
            found = _last_shown(by_user.get(event["user"], ()), event, window_ms)
        if found is not None and found.user == event["user"]:
            found.actions.add(event["action"])


def _last_shown(own: Sequence[Search], event: Mapping[str, Any], window_ms: int) -> Search | None:
    until = bisect_right(own, event["at_ms"], key=lambda search: search.at_ms)
    for search in reversed(own[:until]):
        if event["at_ms"] - search.at_ms > window_ms:
            return None
        if event["item"] in search.items:
            return search
    return None


def _by_user(searches: Iterable[Search]) -> dict[str, list[Search]]:
    """Return each user's searches in order of time."""
    found = defaultdict(list)
    for search in sorted(searches, key=lambda search: search.at_ms):
        found[search.user].append(search)
    return dict(found)


def _arms(by_user: Mapping[str, Sequence[Search]], actions: Sequence[str]) -> list[Arm]:
    users: dict[str, list[Sequence[Search]]] = defaultdict(list)
    for own in by_user.values():
        users[own[0].release].append(own)
    return [
        Arm(
            release=release,
            searches=sum(map(len, each)),
            users=len(each),
            shares={
                action: share_of([(sum(action in s.actions for s in own), len(own)) for own in each])
                for action in actions
            },
        )
        for release, each in users.items()
    ]


def share_of(users: Sequence[tuple[int, int]]) -> Share:
    """Return the share over users who each had so many of so many searches.

    Where all users are alike the interval is Wilson's, a user counting as one trial.
    """
    count, hits, searches = len(users), sum(h for h, _ in users), sum(n for _, n in users)
    value = hits / searches
    residuals = sum((h - value * n) ** 2 for h, n in users)
    if count < 2 or residuals == 0:
        z2 = _Z_95**2
        half = _Z_95 * math.sqrt(value * (1 - value) / count + z2 / (4 * count**2)) / (1 + z2 / count)
        return Share(value=value, error=half)
    error = math.sqrt(residuals * count / (count - 1)) / searches
    return Share(value=value, error=_Z_95 * error)


def _differences(arms: Sequence[Arm], base: str, actions: Sequence[str]) -> Iterable[Difference]:
    known = {arm.release: arm for arm in arms}
    if base not in known:
        return
    for arm in arms:
        for action in actions if arm.release != base else ():
            ours, theirs = arm.shares[action], known[base].shares[action]
            yield Difference(
                release=arm.release,
                action=action,
                value=ours.value - theirs.value,
                error=math.hypot(ours.error, theirs.error),
            )
