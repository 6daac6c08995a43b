import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.traffic import ReleaseNames, gets_canary, is_shadowed, share_of
from shards.errors import NotFound
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Traffic


def release(version: str, surface: str = "gifts") -> Release:
    channel = ReleaseChannel(name="words", model=ModelVersion("words", version))
    return Release(surface=surface, version=version, channels=(channel,))


PLACEMENT = Placement(
    releases={"gifts": release("r2"), "films": release("r2", "films")},
    traffic={
        "gifts": Traffic(
            canary=release("r3"),
            canary_percent=30.0,
            shadow=release("r4"),
            shadow_percent=10.0,
            previous=release("r1"),
        )
    },
    aliases={
        "shop": "gifts",
        "beta": "gifts@canary",
        "frozen": "gifts@r1",
        "lost": "books",
        "gone": "gifts@r9",
        "loop": "loop",
        "twice": "shop",
        "films": "gifts",
    },
)
NAMES = ReleaseNames(PLACEMENT)
USERS = [f"user-{n}" for n in range(4_000)]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("gifts@live", "r2"),
        ("gifts@canary", "r3"),
        ("gifts@shadow", "r4"),
        ("gifts@previous", "r1"),
        ("gifts@r1", "r1"),
        ("gifts@r4", "r4"),
        ("shop@live", "r2"),
        ("shop@r3", "r3"),
        ("beta", "r3"),
        ("frozen", "r1"),
    ],
)
def test_a_name_that_pins_a_release_means_it_for_everybody(name: str, version: str) -> None:
    assert {NAMES.find(name, user).version for user in ("", *USERS[:50])} == {version}


@pytest.mark.parametrize(
    ("name", "kind", "at_fault"),
    [
        ("books", "surface", "books"),
        ("books@live", "surface", "books"),
        ("lost", "surface", "books"),
        ("loop", "surface", "loop"),
        ("twice", "surface", "shop"),
        ("gifts@r9", "release", "gifts@r9"),
        ("gifts@", "release", "gifts@"),
        ("gone", "release", "gifts@r9"),
        ("films@canary", "release", "films@canary"),
        ("beta@live", "release", "beta@live"),
    ],
)
def test_what_is_not_there_is_named(name: str, kind: str, at_fault: str) -> None:
    with pytest.raises(NotFound) as caught:
        NAMES.find(name, "user-1")
    assert (caught.value.kind, caught.value.name) == (kind, at_fault)


def test_shares_decide_between_live_and_canary_also_through_an_alias() -> None:
    answers = [NAMES.find("gifts", user).version for user in USERS]
    assert set(answers) == {"r2", "r3"}
    assert answers == [NAMES.find("shop", user).version for user in USERS]
    assert 0.27 < answers.count("r3") / len(USERS) < 0.33


def test_strangers_get_the_live_release_whatever_the_share() -> None:
    all_of_it = replace(PLACEMENT.traffic["gifts"], canary_percent=100.0)
    names = ReleaseNames(replace(PLACEMENT, traffic={"gifts": all_of_it}))
    assert {names.find("gifts", user).version for user in USERS} == {"r3"}
    assert names.find("gifts").version == "r2"


def test_a_surface_comes_before_an_alias_of_its_name() -> None:
    assert NAMES.find("films", "user-1").surface == "films"


def test_roles_come_before_versions_called_like_them() -> None:
    traffic = {"gifts": Traffic(previous=release("live"))}
    names = ReleaseNames(Placement(releases={"gifts": release("r2")}, traffic=traffic))
    assert names.find("gifts@live").version == "r2"
    assert names.find("gifts@previous").version == "live"


def test_a_release_in_two_roles_is_found_in_both() -> None:
    traffic = {"gifts": Traffic(shadow=release("r2"), shadow_percent=100.0)}
    names = ReleaseNames(Placement(releases={"gifts": release("r2")}, traffic=traffic))
    assert names.find("gifts@shadow") == names.find("gifts@live") == names.find("gifts@r2")


def test_only_searches_of_the_live_release_are_shadowed() -> None:
    requests = [f"q-{n}" for n in range(4_000)]
    shadows = [NAMES.shadow(release("r2"), request) for request in requests]
    assert {shadow.version for shadow in shadows if shadow} == {"r4"}
    assert 0.08 < sum(shadow is not None for shadow in shadows) / len(requests) < 0.12
    for other in (release("r1"), release("r3"), release("r4"), release("r2", "films")):
        assert not any(NAMES.shadow(other, request) for request in requests)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
percents = st.floats(0, 100)


@given(names, names, percents, percents)
def test_raising_the_percent_only_adds_users(surface: str, user: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert gets_canary(surface, user, low) <= gets_canary(surface, user, high)
    assert not gets_canary(surface, user, 0.0)
    assert gets_canary(surface, user, 100.0)


@settings(max_examples=30, deadline=None)
@given(names, percents)
def test_a_share_is_kept_within_a_tolerance(surface: str, percent: float) -> None:
    got = sum(gets_canary(surface, user, percent) for user in USERS) / len(USERS)
    assert abs(got - percent / 100) < 0.045  # More than five standard deviations of 4,000 coins.


@settings(max_examples=30, deadline=None)
@given(names, names, st.floats(10, 90), st.floats(10, 90))
def test_canaries_of_two_surfaces_are_independent(one: str, other: str, first: float, second: float) -> None:
    other = other if other != one else other + "'"
    of_one = [gets_canary(one, user, first) for user in USERS]
    of_other = [gets_canary(other, user, second) for user in USERS]
    both = sum(a and b for a, b in zip(of_one, of_other, strict=True)) / len(USERS)
    assert abs(both - first * second / 1e4) < 0.05


def test_shadows_and_canaries_are_independent() -> None:
    both = sum(gets_canary("gifts", x, 50.0) and is_shadowed("gifts", x, 50.0) for x in USERS)
    assert 0.21 < both / len(USERS) < 0.29


def test_the_share_is_what_the_document_says_in_every_process() -> None:
    assert share_of("canary", "gifts", "user-1") == 0.10526950706027882
    assert share_of("a", "bc") != share_of("ab", "c")
    program = "from router.traffic import share_of; print(share_of('canary', 'gifts', 'Zoë'))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{share_of('canary', 'gifts', 'Zoë')}\n"}
