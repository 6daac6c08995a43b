from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.flap_damping import DampingRules, Membership, damped

RULES = DampingRules(linger_ms=1_000, half_life_ms=10_000, suppress_at=2.5, reuse_at=1.0)
A = {"a": "h:1"}

Seen = dict[str, str]


def after(*told: tuple[int, Seen], rules: DampingRules = RULES) -> Membership:
    """Return the membership after each set was seen at its time."""
    membership = Membership()
    for now_ms, seen in told:
        membership = damped(membership, seen, now_ms, rules)
    return membership


def test_a_new_member_is_used_at_once() -> None:
    assert after((0, A)) == replace(Membership(), addresses=A, histories=after((0, A)).histories)


def test_a_member_that_vanishes_is_kept_for_a_while() -> None:
    gone = after((0, A), (5_000, {}))
    assert gone.addresses == A
    assert gone.next_change_ms == 6_000
    assert damped(gone, {}, 5_999, RULES).addresses == A
    assert damped(gone, {}, 6_000, RULES).addresses == {}


def test_a_member_that_moves_is_used_at_its_new_address_without_penalty() -> None:
    moved = after(*((n, {"a": f"h:{n}"}) for n in range(1, 50)))
    assert moved.addresses == {"a": "h:49"}
    assert moved.histories["a"].penalty == 0


def flapping(times: int) -> Membership:
    return after(*((n * 100, {} if n % 2 else A) for n in range(2 * times + 1)))


def test_a_member_that_keeps_vanishing_is_kept_out_although_it_is_there() -> None:
    assert flapping(2).addresses == A
    assert flapping(3).addresses == {}


def test_a_suppressed_member_returns_when_it_has_been_quiet() -> None:
    held = flapping(3)
    assert held.next_change_ms is not None
    # 3 losses decay to 1 in log2(3) half-lives of 10 s.
    assert 15_000 < held.next_change_ms < 17_000
    assert damped(held, A, held.next_change_ms - 100, RULES).addresses == {}
    assert damped(held, A, held.next_change_ms, RULES).addresses == A


def test_who_left_for_good_is_forgotten() -> None:
    membership = after((0, A), (1, {}), (60_000, {}))
    assert membership == Membership()


@pytest.mark.parametrize(
    "wrong", [{"linger_ms": -1}, {"half_life_ms": 0}, {"reuse_at": 0.0}, {"reuse_at": 3.0}]
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"linger_ms|reuse_at"):
        DampingRules(**wrong)  # type: ignore[arg-type]


histories = st.lists(
    st.tuples(
        st.integers(0, 3_000), st.dictionaries(st.sampled_from("abc"), st.sampled_from(["h:1", "h:2"]))
    ),
    min_size=1,
    max_size=30,
)


def told(steps: list[tuple[int, Seen]]) -> list[tuple[int, Seen]]:
    """Return the steps at rising times instead of pauses."""
    now_ms, timed = 0, []
    for pause_ms, seen in steps:
        now_ms += pause_ms
        timed.append((now_ms, seen))
    return timed


@given(histories)
def test_looking_twice_changes_nothing(steps: list[tuple[int, Seen]]) -> None:
    timed = told(steps)
    once = after(*timed)
    assert damped(once, timed[-1][1], timed[-1][0], RULES) == once


@given(histories)
def test_a_member_always_there_is_always_used(steps: list[tuple[int, Seen]]) -> None:
    membership = Membership()
    for now_ms, seen in told(steps):
        membership = damped(membership, seen | {"steady": "h:9"}, now_ms, RULES)
        assert membership.addresses["steady"] == "h:9"


@given(histories)
def test_only_who_was_seen_is_used_and_at_its_last_address(steps: list[tuple[int, Seen]]) -> None:
    timed = told(steps)
    last: Seen = {}
    for _, seen in timed:
        last |= seen
    assert after(*timed).addresses.items() <= last.items()


@given(histories)
def test_by_time_alone_nothing_changes_before_the_foretold_moment(steps: list[tuple[int, Seen]]) -> None:
    timed = told(steps)
    membership, (now_ms, seen) = after(*timed), timed[-1]
    until_ms = membership.next_change_ms or now_ms + 100_000
    assert damped(membership, seen, until_ms - 2, RULES).addresses == membership.addresses


@given(histories)
def test_in_the_end_exactly_who_is_there_is_used(steps: list[tuple[int, Seen]]) -> None:
    timed = told(steps)
    membership, (now_ms, seen) = after(*timed), timed[-1]
    while membership.next_change_ms is not None:
        assert membership.next_change_ms > now_ms
        now_ms = membership.next_change_ms
        membership = damped(membership, seen, now_ms, RULES)
    assert membership.addresses == seen
