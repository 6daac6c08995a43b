"""An A/B read-out: what counts for which search, and whether a difference is told apart from chance."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.outcome_lines import read_lines
from deploy.readout import Arm, Readout, readout, share_of

MINUTE_MS = 60_000


def search(
    name: str, user: str, release: str, at_ms: int, *items: str, pinned: bool = False
) -> dict[str, Any]:
    return {
        "kind": "search",
        "at_ms": at_ms,
        "id": name,
        "user": user,
        "surface": "gifts",
        "release": release,
        "pinned": pinned,
        "items": list(items or ("a", "b")),
    }


def event(
    name: str, user: str, item: str, at_ms: int, action: str = "click", search: str = ""
) -> dict[str, Any]:
    return {
        "kind": "event",
        "at_ms": at_ms,
        "id": name,
        "user": user,
        "item": item,
        "action": action,
        "search": search,
    }


def read(*lines: Mapping[str, Any], **options: Any) -> Readout:
    return readout(
        lambda: lines, "gifts", ("click",), **{"window_ms": 30 * MINUTE_MS, "since_ms": 0} | options
    )


def clicked(*lines: Mapping[str, Any]) -> float:
    (arm,) = read(*lines).arms
    return arm.shares["click"].value * arm.searches


def test_an_event_counts_for_the_last_search_that_showed_the_item() -> None:
    first = search("s1", "u", "7", 1_000, "a", "b")
    second = search("s2", "u", "7", 2_000, "b", "c")
    assert clicked(first, second, event("e1", "u", "a", 3_000), event("e2", "u", "c", 3_000)) == 2
    assert clicked(first, second, event("e1", "u", "b", 3_000), event("e2", "u", "c", 3_000)) == 1


@pytest.mark.parametrize(
    "told",
    [
        event("e", "u", "z", 3_000),
        event("e", "other", "a", 3_000),
        event("e", "u", "a", 999),
        event("e", "u", "a", 1_001 + 30 * MINUTE_MS),
        event("e", "u", "a", 3_000, "purchase"),
        event("e", "u", "a", 3_000, search="unknown"),
        event("e", "other", "a", 3_000, search="s1"),
    ],
)
def test_what_does_not_follow_from_a_search_does_not_count(told: dict[str, Any]) -> None:
    assert clicked(search("s1", "u", "7", 1_000), told) == 0


def test_an_event_that_names_its_search_counts_for_that_one() -> None:
    lines = search("s1", "u", "7", 1_000, "a"), search("s2", "u", "8", 2_000, "a")
    # One user who met both releases is left out, so each release has its own here.
    others = search("s3", "v", "7", 1_000, "a"), search("s4", "w", "8", 1_000, "a")
    late = event("e", "v", "a", 10**9, search="s3")
    found = read(*lines, *others, late)
    assert {arm.release: arm.shares["click"].value for arm in found.arms} == {"7": 1.0, "8": 0.0}
    assert found.switched == 1


def test_an_event_that_comes_twice_counts_once_and_so_does_a_second_click() -> None:
    once = event("e", "u", "a", 3_000)
    assert clicked(search("s1", "u", "7", 1_000), once, once, event("f", "u", "b", 3_000)) == 1


def test_visitors_and_pinned_searches_are_no_part_of_it() -> None:
    found = read(
        search("s1", "", "7", 1_000),
        search("s2", "u", "8", 1_000, pinned=True),
        search("s3", "v", "7", 1_000),
    )
    assert [(arm.release, arm.searches) for arm in found.arms] == [("7", 1)]
    assert (found.visitors, found.pinned) == (1, 1)


def test_it_begins_when_the_last_release_came_in() -> None:
    old, new = search("s1", "u", "7", 1_000), search("s2", "v", "8", 50_000)
    found = read(old, new, search("s3", "w", "7", 60_000), since_ms=None)
    assert found.since_ms == 50_000
    assert {arm.release: arm.searches for arm in found.arms} == {"7": 1, "8": 1}


def simulated(seed: int, *, lift: float, users: int = 400) -> Readout:
    """Return a test of users of whom each has a liking for clicks of their own."""
    rng = random.Random(seed)
    lines = []
    for user in range(users):
        release = rng.choice("78")
        liking = rng.betavariate(2, 6) + (lift if release == "8" else 0.0)
        for at in range(rng.randint(1, 20)):
            name = f"{user}-{at}"
            lines.append(search(name, f"u{user}", release, at * 1_000))
            if rng.random() < liking:
                lines.append(event(f"e{name}", f"u{user}", "a", at * 1_000 + 10, search=name))
    return read(*lines, base="7")


def test_an_effect_is_found_with_about_its_size() -> None:
    (difference,) = simulated(1, lift=0.15).differences
    assert difference.release == "8"
    assert difference.sure
    assert abs(difference.value - 0.15) < difference.error


def test_without_one_nineteen_in_twenty_intervals_hold_zero() -> None:
    sure = sum(simulated(seed, lift=0.0).differences[0].sure for seed in range(200))
    assert 2 <= sure <= 20, "searches of one user taken for independent would be sure far more often"


def test_the_base_is_the_one_that_is_asked_for_and_comes_first() -> None:
    lines = [search(f"s{n}", f"u{n}", "7" if n < 3 else "8", 1_000) for n in range(5)]
    assert [arm.release for arm in read(*lines).arms] == ["7", "8"]
    assert [arm.release for arm in read(*lines, base="8").arms] == ["8", "7"]
    assert read(*lines, base="9").differences == ()


def test_users_who_are_all_alike_leave_room_for_others() -> None:
    assert share_of([(0, 5)] * 20).error > 0.05
    assert share_of([(1, 1)]).error > 0.3
    assert isinstance(read(search("s", "u", "7", 1)).arms[0], Arm)


def test_lines_that_are_none_are_counted(tmp_path: Path) -> None:
    (tmp_path / "router-0-0.jsonl").write_text(json.dumps(search("s", "u", "7", 1)) + "\n")
    (tmp_path / "router-0-1.jsonl").write_bytes(
        b'{"kind": "event"}\nnonsense\n[1]\n\xff\xfe\n{"kind": "search"}\n{"kind": "se'
    )
    lines = list(read_lines(tmp_path))
    assert lines == [search("s", "u", "7", 1), *[None] * 6]
    found = readout(lambda: lines, "gifts", ("click",), window_ms=1)
    assert (found.arms[0].searches, found.unread) == (1, 6)


@pytest.mark.parametrize("field", ["at_ms", "id", "user", "surface", "release", "pinned", "items"])
def test_a_line_whose_field_is_of_another_type_is_none(tmp_path: Path, field: str) -> None:
    told = search("s", "u", "7", 1)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(told | {field: w}) + "\n" for w in (None, 0.5, [1])))
    assert list(read_lines(tmp_path)) == [None, None, None]
