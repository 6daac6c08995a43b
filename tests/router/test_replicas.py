import random
from collections import Counter

import pytest

from router.replicas import AVOID_S, ReplicaHealth, choose
from router.routing_table import Endpoint

A, B, C = (Endpoint(f"s{n}", f"h:{n}") for n in range(3))


def test_the_less_busy_of_two_is_asked() -> None:
    rng = random.Random(1)
    for _ in range(20):
        assert choose([A, B], in_flight={A: 3, B: 2}, failed_at={}, now=0, rng=rng) == B


def test_the_busiest_of_three_is_never_asked_and_the_others_share() -> None:
    rng = random.Random(1)
    asked = Counter(choose([A, B, C], in_flight={B: 9}, failed_at={}, now=0, rng=rng) for _ in range(300))
    assert asked[B] == 0
    assert min(asked[A], asked[C]) > 75


def test_equally_busy_replicas_share() -> None:
    rng = random.Random(1)
    asked = Counter(choose([A, B], in_flight={}, failed_at={}, now=0, rng=rng) for _ in range(200))
    assert min(asked.values()) > 60


def test_a_failed_replica_is_avoided_for_a_while() -> None:
    rng = random.Random(1)
    for now in (5.0, 5.0 + AVOID_S * 0.99):
        asked = {choose([A, B], in_flight={B: 9}, failed_at={A: 5.0}, now=now, rng=rng) for _ in range(9)}
        assert asked == {B}
    later = 5.0 + AVOID_S
    assert choose([A, B], in_flight={B: 9}, failed_at={A: 5.0}, now=later, rng=rng) == A


def test_a_failed_replica_is_then_probed_by_one_request_at_a_time() -> None:
    health = ReplicaHealth(random.Random(1))
    health.failed(A, 5.0)
    assert [health.choose([A, B], 5.0 + AVOID_S) for _ in range(5)] == [A, B, B, B, B]
    assert [health.choose([A, B], 5.0 + 2 * AVOID_S) for _ in range(5)] == [A, B, B, B, B]


def test_a_second_attempt_is_no_probe() -> None:
    health = ReplicaHealth(random.Random(1))
    health.failed(A, 5.0)
    assert {health.choose([A, B], 5.0 + AVOID_S, probe=False) for _ in range(9)} == {B}
    assert health.choose([A], 5.0 + AVOID_S, probe=False) == A


def test_silence_is_what_nobody_was_answered_in() -> None:
    health = ReplicaHealth(random.Random(1))
    assert health.silent_since(A, 1.0)
    health.answered(A, 2.0)
    assert not health.silent_since(A, 1.0)
    assert health.silent_since(A, 2.5)
    health.retain([B])
    assert health.silent_since(A, 1.0)


def test_failed_replicas_are_asked_when_there_are_no_others() -> None:
    rng = random.Random(1)
    assert choose([A], in_flight={}, failed_at={A: 5.0}, now=5.0, rng=rng) == A
    with pytest.raises(ValueError, match="no replica"):
        choose([], in_flight={}, failed_at={}, now=0, rng=rng)


def test_health_counts_requests_in_flight() -> None:
    health = ReplicaHealth(random.Random(1))
    with health.asking(A):
        assert {health.choose([A, B], 0.0) for _ in range(20)} == {B}
        with health.asking(B), health.asking(B):
            assert {health.choose([A, B], 0.0) for _ in range(20)} == {A}
    assert {health.choose([A, B], 0.0) for _ in range(20)} == {A, B}


def test_an_answer_heals_and_a_failed_request_is_no_longer_in_flight() -> None:
    health = ReplicaHealth(random.Random(1))
    with pytest.raises(RuntimeError), health.asking(A):
        raise RuntimeError
    health.failed(A, 1.0)
    assert {health.choose([A, B], 1.5) for _ in range(20)} == {B}
    health.answered(A, 1.2)
    assert {health.choose([A, B], 1.5) for _ in range(20)} == {A, B}


def test_only_replicas_of_the_placement_are_remembered() -> None:
    health = ReplicaHealth(random.Random(1))
    health.failed(A, 1.0)
    health.retain([B])
    assert {health.choose([A, B], 1.5) for _ in range(20)} == {A, B}
