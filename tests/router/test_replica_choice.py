import random
from collections import Counter
from collections.abc import Mapping

import pytest

from router.replica_choice import AVOID_S, choose
from router.routing_table import Endpoint

A, B, C, D = (Endpoint(f"s{n}", f"h:{n}") for n in range(4))


def chosen(
    *replicas: Endpoint,
    in_flight: Mapping[Endpoint, int] | None = None,
    latency_s: Mapping[Endpoint, float] | None = None,
    failed_at: Mapping[Endpoint, float] | None = None,
    ejected_until: Mapping[Endpoint, float] | None = None,
    now: float = 0.0,
    times: int = 300,
) -> Counter[Endpoint]:
    rng = random.Random(1)
    return Counter(
        choose(
            replicas,
            in_flight=in_flight or {},
            latency_of=(latency_s or {}).get,
            failed_at=failed_at or {},
            ejected_until=ejected_until or {},
            now=now,
            rng=rng,
        )
        for _ in range(times)
    )


def test_the_less_busy_of_two_is_asked() -> None:
    assert chosen(A, B, in_flight={A: 3, B: 2}).keys() == {B}


def test_the_busiest_of_three_is_never_asked_and_the_others_share() -> None:
    asked = chosen(A, B, C, in_flight={B: 9})
    assert asked[B] == 0
    assert min(asked[A], asked[C]) > 75


def test_equally_busy_replicas_share_though_their_latencies_differ_a_little() -> None:
    assert min(chosen(A, B).values()) > 100
    assert min(chosen(A, B, latency_s={A: 0.010, B: 0.019}).values()) > 100


def test_a_much_slower_replica_is_asked_only_when_the_other_is_that_much_busier() -> None:
    slow = {A: 0.5, B: 0.01}
    assert chosen(A, B, latency_s=slow).keys() == {B}
    assert chosen(A, B, latency_s=slow, in_flight={B: 20}).keys() == {B}
    assert chosen(A, B, latency_s=slow, in_flight={B: 120}).keys() == {A}


def test_a_replica_of_which_nothing_is_known_is_taken_to_be_as_fast() -> None:
    assert min(chosen(A, B, latency_s={A: 0.01}).values()) > 100
    assert chosen(A, B, latency_s={A: 0.01}, in_flight={B: 1}).keys() == {A}


def test_a_failed_replica_is_avoided_for_a_while_and_then_probed() -> None:
    for now in (5.0, 5.0 + AVOID_S * 0.99):
        assert chosen(A, B, in_flight={B: 9}, failed_at={A: 5.0}, now=now).keys() == {B}
    assert chosen(A, B, in_flight={B: 9}, failed_at={A: 5.0}, now=5.0 + AVOID_S).keys() == {A}


def test_failed_replicas_are_asked_when_there_are_no_others() -> None:
    assert chosen(A, failed_at={A: 5.0}, now=5.0).keys() == {A}
    with pytest.raises(ValueError, match="no replica"):
        chosen()


def test_ejected_replicas_are_left_out_until_their_time_has_passed() -> None:
    assert chosen(A, B, C, ejected_until={A: 9.0}, now=8.9).keys() == {B, C}
    assert chosen(A, B, C, ejected_until={A: 9.0}, now=9.0).keys() == {A, B, C}


def test_never_more_than_half_are_left_out_nor_the_last_one() -> None:
    everyone = {A: 9.0, B: 8.0, C: 7.0, D: 6.0}
    assert chosen(A, ejected_until=everyone).keys() == {A}
    assert chosen(A, B, ejected_until=everyone).keys() == {B}
    assert chosen(A, B, C, ejected_until=everyone).keys() == {B, C}
    assert chosen(A, B, C, D, ejected_until=everyone).keys() == {C, D}


def test_what_is_left_beside_failed_replicas_is_not_ejected_as_well() -> None:
    assert chosen(A, B, failed_at={A: 0.0}, ejected_until={B: 9.0}).keys() == {B}
