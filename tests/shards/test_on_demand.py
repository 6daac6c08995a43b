"""Bundles held on demand: cold, loaded when asked for, evicted for others, given up with a reason."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards.errors import CorruptBundle, NotOwner, Overloaded, OversizedBundle, Unavailable
from shards.eviction import EvictionLimits
from shards.holding import LOADED, Terms
from shards.load_attempts import AttemptLimits
from shards.memory_use import MemoryUse
from shards.process_memory import memory_in_use
from shards.release import ModelVersion, Stage
from shards.replica import Replica, ReplicaState
from shards.residency import Residency
from tests.shards.bundles import VERSION
from tests.shards.many_bundles import write_copy

ONE_BYTES = 4 << 20
"""Far more than measuring errs by."""
ON_DEMAND = Terms(on_demand=True)
PINNED = Terms(on_demand=True, pinned=True)
FIRST, SECOND, THIRD = (ModelVersion(name, VERSION) for name in ("first", "second", "third"))


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Shelf:
    """A residency with a clock to turn, and the bundles that it may hold."""

    residency: Residency
    clock: Clock
    models: Path

    def hold(self, model: ModelVersion, terms: Terms = ON_DEMAND) -> Replica:
        return self.residency.load(model, self.models / model.model / model.version, terms)

    def states(self) -> dict[ModelVersion, ReplicaState]:
        return {replica.model: replica.state for replica in self.residency.replicas()}

    def replica(self, model: ModelVersion) -> Replica:
        return next(replica for replica in self.residency.replicas() if replica.model == model)

    def ask(self, model: ModelVersion) -> None:
        """Have the bundle answer, as a stage call does."""
        if self.residency.take(model, Stage.RETRIEVAL) is None:
            self.residency.demand(model)
            assert self.residency.take(model, Stage.RETRIEVAL) is not None
        self.residency.give(model, answered=True)


def shelf(models: Path, capacity_bytes: int = 0) -> Shelf:
    clock = Clock()
    limits = EvictionLimits(
        capacity=MemoryUse(host_bytes=capacity_bytes), min_idle_s=2.0, min_residence_s=10.0
    )
    attempts = AttemptLimits(attempts=2, backoff_s=4.0)
    return Shelf(Residency(limits=limits, attempts=attempts, clock=clock), clock, models)


@pytest.fixture(scope="module")
def bundles(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of three bundles that need `ONE_BYTES` each, and a little."""
    root = tmp_path_factory.mktemp("bundles")
    for model in (FIRST, SECOND, THIRD):
        write_copy(root, models / "two_tower" / VERSION, model.model, padding_bytes=ONE_BYTES)
    return root


def test_it_is_cold_until_it_is_asked_for(bundles: Path) -> None:
    shelved = shelf(bundles)
    assert shelved.hold(FIRST).state is ReplicaState.COLD
    assert shelved.residency.take(FIRST, Stage.RETRIEVAL) is None
    assert shelved.residency.memory() == MemoryUse()
    shelved.ask(FIRST)
    replica = shelved.replica(FIRST)
    assert (replica.state, replica.requests) == (ReplicaState.READY, 1)
    assert shelved.residency.memory().host_bytes == replica.memory_bytes > 0


def test_a_corrupt_bundle_is_refused_when_it_is_registered(bundles: Path, tmp_path: Path) -> None:
    path = tmp_path / "first"
    shutil.copytree(bundles / "first" / VERSION, path)
    (path / "items.parquet").write_bytes(b"altered")
    shelved = shelf(bundles)
    with pytest.raises(CorruptBundle, match=r"items\.parquet"):
        shelved.residency.load(FIRST, path, ON_DEMAND)
    assert shelved.states() == {FIRST: ReplicaState.FAILED}
    with pytest.raises(Unavailable, match="is failed here"):
        shelved.residency.take(FIRST, Stage.RETRIEVAL)


def test_one_that_is_bigger_than_the_shard_is_refused_with_figures(bundles: Path) -> None:
    shelved = shelf(bundles, 2**20)
    with pytest.raises(OversizedBundle, match=r"first@1: needs 2\.0 MiB, and of 1\.0 MiB for bundles"):
        shelved.hold(FIRST, Terms(on_demand=True, memory_bytes=2**21))
    with pytest.raises(OversizedBundle, match=r"needs 2\.0 MiB"):
        shelved.hold(FIRST, Terms(memory_bytes=2**21))
    with pytest.raises(NotOwner):
        shelved.residency.demand(SECOND)


def test_the_one_that_was_idle_longest_makes_room(bundles: Path) -> None:
    shelved = shelf(bundles, round(2.5 * ONE_BYTES))
    for model in (FIRST, SECOND, THIRD):
        shelved.hold(model)
    shelved.ask(FIRST)
    shelved.clock.now_s += 20
    shelved.ask(SECOND)
    shelved.clock.now_s += 20
    shelved.ask(THIRD)
    ready, cold = ReplicaState.READY, ReplicaState.COLD
    assert shelved.states() == {FIRST: cold, SECOND: ready, THIRD: ready}
    # What was evicted tells how much it used, and comes back when asked for.
    assert shelved.replica(FIRST).memory_bytes > 0
    shelved.clock.now_s += 20
    shelved.ask(FIRST)
    assert shelved.states()[FIRST] is ReplicaState.READY
    assert shelved.residency.memory().host_bytes <= round(2.5 * ONE_BYTES)


def test_what_was_just_loaded_stays_and_the_caller_is_told_when_to_come_back(bundles: Path) -> None:
    shelved = shelf(bundles, round(1.5 * ONE_BYTES))
    shelved.hold(THIRD)
    shelved.hold(FIRST)
    shelved.ask(THIRD)
    with pytest.raises(Overloaded, match="more do not fit beside") as caught:
        shelved.residency.demand(FIRST)
    assert caught.value.retry_after_s == pytest.approx(10, abs=1e-3)
    assert shelved.states() == {THIRD: ReplicaState.READY, FIRST: ReplicaState.COLD}
    assert "do not fit" in shelved.replica(FIRST).error
    shelved.clock.now_s += caught.value.retry_after_s
    shelved.ask(FIRST)
    assert shelved.states() == {THIRD: ReplicaState.COLD, FIRST: ReplicaState.READY}


def test_a_request_under_way_is_not_evicted(bundles: Path) -> None:
    shelved = shelf(bundles, round(1.5 * ONE_BYTES))
    shelved.hold(THIRD)
    shelved.hold(FIRST)
    shelved.ask(THIRD)
    assert shelved.residency.take(THIRD, Stage.RETRIEVAL) is not None
    shelved.clock.now_s += 100
    with pytest.raises(Overloaded):
        shelved.residency.demand(FIRST)
    with pytest.raises(Overloaded):
        shelved.hold(FIRST, LOADED)
    shelved.residency.give(THIRD, answered=True)
    shelved.hold(FIRST, LOADED)
    assert shelved.states()[THIRD] is ReplicaState.COLD


def test_what_is_wanted_for_good_comes_first_and_stays(bundles: Path) -> None:
    shelved = shelf(bundles, round(1.5 * ONE_BYTES))
    shelved.hold(FIRST)
    shelved.ask(FIRST)
    # It makes room at once, without waiting for the other to have had its time.
    assert shelved.hold(THIRD, LOADED).state is ReplicaState.READY
    shelved.clock.now_s += 100
    with pytest.raises(Unavailable, match="are held by bundles that stay"):
        shelved.residency.demand(FIRST)
    assert shelved.states() == {THIRD: ReplicaState.READY, FIRST: ReplicaState.COLD}


def test_a_pinned_one_stays_once_it_is_loaded(bundles: Path) -> None:
    shelved = shelf(bundles, round(1.5 * ONE_BYTES))
    assert shelved.hold(THIRD, PINNED).state is ReplicaState.COLD
    shelved.ask(THIRD)
    shelved.clock.now_s += 100
    shelved.hold(FIRST)
    with pytest.raises(Unavailable, match="stay"):
        shelved.residency.demand(FIRST)
    shelved.hold(THIRD)
    shelved.clock.now_s += 10
    shelved.ask(FIRST)
    assert shelved.states()[THIRD] is ReplicaState.COLD


def test_a_load_that_fails_is_tried_again_later_and_then_given_up(bundles: Path, tmp_path: Path) -> None:
    path = tmp_path / "first"
    shutil.copytree(bundles / "first" / VERSION, path)
    shelved = shelf(bundles)
    shelved.residency.load(FIRST, path, ON_DEMAND)
    path.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match=r"first@1 failed to load: manifest\.json: cannot be read"):
        shelved.residency.demand(FIRST)
    assert shelved.states() == {FIRST: ReplicaState.COLD}
    for impatient in (lambda: shelved.residency.demand(FIRST), lambda: shelved.ask(FIRST)):
        with pytest.raises(Unavailable, match=r"tried again in 4\.0 s: manifest\.json"):
            impatient()
    shelved.clock.now_s += 4
    with pytest.raises(Unavailable, match="cannot be read"):
        shelved.ask(FIRST)
    assert shelved.states() == {FIRST: ReplicaState.FAILED}
    shelved.clock.now_s += 1e6
    (tmp_path / "away").rename(path)
    with pytest.raises(Unavailable, match=r"failed to load 2 times, the last time: manifest\.json"):
        shelved.ask(FIRST)
    # Until someone asks for it anew.
    assert shelved.residency.load(FIRST, path, ON_DEMAND).state is ReplicaState.COLD
    shelved.ask(FIRST)


def test_it_is_restored_cold_without_being_read(bundles: Path) -> None:
    shelved = shelf(bundles)
    path = bundles / "first" / VERSION
    shelved.residency.restore(FIRST, Stage.RETRIEVAL, path, Terms(on_demand=True, memory_bytes=7))
    replica = shelved.replica(FIRST)
    assert (replica.state, replica.memory_bytes) == (ReplicaState.COLD, 7)
    shelved.ask(FIRST)


def test_new_terms_hold_for_what_is_loaded(bundles: Path) -> None:
    shelved = shelf(bundles)
    ready = shelved.hold(FIRST, LOADED)
    assert shelved.hold(FIRST) is ready
    shelved.residency.unload(FIRST)
    shelved.hold(FIRST)
    assert shelved.hold(FIRST, LOADED).state is ReplicaState.READY


def test_memory_is_flat_over_loads_and_unloads(bundles: Path) -> None:
    shelved = shelf(bundles)
    in_use = []
    for _ in range(30):
        for model in (FIRST, SECOND, THIRD):
            shelved.hold(model, LOADED)
        for model in (FIRST, SECOND, THIRD):
            shelved.residency.unload(model)
        in_use.append(memory_in_use().host_bytes)
    assert in_use[-1] < 1.03 * in_use[9]
