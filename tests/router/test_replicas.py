import random

from router.call_history import CallHistory
from router.replica_choice import AVOID_S
from router.replicas import ReplicaHealth, ReplicaSettings
from router.routing_table import Endpoint
from shards.release import ModelVersion

A, B, C = (Endpoint(f"s{n}", f"h:{n}") for n in range(3))
MODELS = (ModelVersion("tower", "1"),)


class Known:
    """A health and the history of one kind of call, asked for one replica after the other."""

    def __init__(self) -> None:
        self.health = ReplicaHealth(random.Random(1), ReplicaSettings(latency_decay_s=2.0))
        self.history: CallHistory = self.health.history("/path", MODELS)

    def choose(self, now: float, *, times: int = 1, probe: bool = True) -> list[Endpoint]:
        return [self.health.choose([A, B], now, self.history, probe=probe) for _ in range(times)]


def test_a_failed_replica_is_probed_by_one_request_at_a_time() -> None:
    known = Known()
    known.health.failed(A, 5.0)
    assert known.choose(5.0 + AVOID_S, times=5) == [A, B, B, B, B]
    assert known.choose(5.0 + 2 * AVOID_S, times=5) == [A, B, B, B, B]


def test_a_second_attempt_is_no_probe() -> None:
    known = Known()
    known.health.failed(A, 5.0)
    assert set(known.choose(5.0 + AVOID_S, times=9, probe=False)) == {B}
    assert known.health.choose([A], 5.0 + AVOID_S, known.history, probe=False) == A


def test_silence_is_what_nobody_was_answered_in() -> None:
    health = Known().health
    assert health.silent_since(A, 1.0)
    health.answered(A, 2.0)
    assert not health.silent_since(A, 1.0)
    assert health.silent_since(A, 2.5)
    health.retain([B], 3.0)
    assert health.silent_since(A, 1.0)


def test_health_counts_requests_in_flight() -> None:
    known = Known()
    known.health.began(A)
    assert set(known.choose(0.0, times=20)) == {B}
    known.health.began(B)
    known.health.began(B)
    assert set(known.choose(0.0, times=20)) == {A}
    assert known.health.in_flight == 3
    for replica in (A, B, B):
        known.health.ended(replica)
    assert known.health.in_flight == 0
    assert set(known.choose(0.0, times=20)) == {A, B}


def test_an_answer_heals() -> None:
    known = Known()
    known.health.failed(A, 1.0)
    assert set(known.choose(1.5, times=20)) == {B}
    known.health.answered(A, 1.2)
    assert set(known.choose(1.5, times=20)) == {A, B}


def test_a_replica_fifty_times_slower_gets_next_to_nothing_and_is_tried_again() -> None:
    known = Known()
    taken = {A: 0.25, B: 0.005}
    asked: list[tuple[float, Endpoint]] = []
    now = 0.0
    while now < 30.0:
        (replica,) = known.choose(now)
        asked.append((now, replica))
        known.history.answered(replica, taken[replica], now)
        known.health.answered(replica, now)
        now += 0.01
        if now >= 20.0:
            taken[A] = 0.005
    slow = [at for at, replica in asked if replica == A]
    assert len([at for at in slow if at < 2.0]) == 1
    assert 2 <= len([at for at in slow if 2.0 <= at < 20.0]) <= 6
    assert len([at for at in slow if at > 27.0]) > 60


def test_a_replica_that_errs_is_left_out_for_longer_each_time_and_forgiven() -> None:
    known = Known()
    for _ in range(4):
        known.health.erred(A, 1.0)
    assert known.health.ejected(A, 1.5)
    assert set(known.choose(1.5, times=20)) == {B}
    assert set(known.choose(2.0, times=20)) == {A, B}
    known.health.erred(A, 2.1)
    assert known.health.ejected(A, 4.0)
    assert set(known.choose(4.2, times=20)) == {A, B}
    for at in (5.0, 12.0):
        known.health.answered(A, at)
    known.health.erred(A, 12.1)
    assert not known.health.ejected(A, 12.1)


def test_both_replicas_that_err_are_still_asked() -> None:
    known = Known()
    for _ in range(4):
        known.health.erred(A, 1.0)
        known.health.erred(B, 1.0)
    assert len(set(known.choose(1.1, times=20))) == 1


def test_only_replicas_of_the_placement_are_remembered() -> None:
    known = Known()
    known.health.failed(A, 1.0)
    known.health.retain([B], 1.0)
    assert set(known.choose(1.5, times=20)) == {A, B}


def test_what_nobody_asked_for_long_is_forgotten() -> None:
    known = Known()
    known.history.answered(A, 0.1, 0.0)
    known.health.retain([A, B], 60.0)
    assert known.health.history("/path", MODELS) is known.history
    known.health.retain([A, B], 3600.0)
    assert known.health.history("/path", MODELS) is not known.history
