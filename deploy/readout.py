"""What users did after searches that different releases answered: a canary beside what is live.

An event counts for the search that it names. One that names none counts for the user's last search within the
window before it whose page had the item. A share is that of searches with at least one such event. Searches
of one user depend on each other, so users are what varies: the standard error of a share is that of a ratio
of sums over users (Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018).
"""

import math
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.outcome_lines import Line

_Z_95 = 1.96


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


def readout(
    lines: Callable[[], Iterable[Line | None]],
    surface: str,
    actions: Sequence[str],
    *,
    window_ms: int,
    base: str = "",
    since_ms: int | None = None,
) -> Readout:
    """Return what the releases of a surface did; without `since_ms` from when the last of them came in.

    `lines` are asked for twice and held one by one; None is one that cannot be read. `base` is what the
    others are compared with; by default the release that answered most searches.
    """
    searches, left_out = _searches(lines(), surface, since_ms)
    began_ms = _began_ms(searches.values()) if since_ms is None else since_ms
    kept = {name: search for name, search in searches.items() if search.at_ms >= began_ms}
    _attribute(kept, lines(), window_ms)
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
        visitors=left_out["visitors"],
        pinned=left_out["pinned"],
        switched=len(switched),
        unread=left_out["unread"],
    )


def _searches(
    lines: Iterable[Line | None], surface: str, since_ms: int | None
) -> tuple[dict[str, Search], Counter[str]]:
    """Return the searches of a surface that count, by id, and how much was left out and why."""
    found: dict[str, Search] = {}
    left_out: Counter[str] = Counter()
    for line in lines:
        if line is None:
            left_out["unread"] += 1
        elif line["kind"] == "search" and line["surface"] == surface:
            if since_ms is not None and line["at_ms"] < since_ms:
                continue
            left_out["visitors"] += not line["user"]
            left_out["pinned"] += line["pinned"]
            if line["user"] and not line["pinned"]:
                found[line["id"]] = _search(line)
    return found, left_out


def _search(line: Line) -> Search:
    items = frozenset(map(sys.intern, line["items"]))  # One text for an item, however often it is shown.
    return Search(at_ms=line["at_ms"], user=line["user"], release=line["release"], items=items)


def _began_ms(searches: Iterable[Search]) -> int:
    """Return when the last of the releases answered for the first time."""
    first: dict[str, int] = {}
    for search in searches:
        first[search.release] = min(search.at_ms, first.get(search.release, search.at_ms))
    return max(first.values(), default=0)


def _attribute(searches: Mapping[str, Search], lines: Iterable[Line | None], window_ms: int) -> None:
    """Add each event's action to the search that it counts for, if there is one; a repeated event is one."""
    by_user = _by_user(searches.values())
    counted: set[str] = set()
    for event in lines:
        if event is None or event["kind"] != "event" or event["id"] in counted:
            continue
        found = searches.get(event["search"]) if event["search"] else None
        if not event["search"]:
            found = _last_shown(by_user.get(event["user"], ()), event, window_ms)
        if found is not None and found.user == event["user"]:
            found.actions.add(event["action"])
            counted.add(event["id"])


def _last_shown(own: Sequence[Search], event: Line, window_ms: int) -> Search | None:
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
