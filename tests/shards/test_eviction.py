"""Who makes room, by example and for all residents."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.eviction import EvictionLimits, NoRoom, Resident, Victims, choose_victims
from shards.memory_use import NOTHING, MemoryUse
from shards.release import ModelVersion

NOW_S = 1000.0


def bytes_of(host: int, gpu: int = 0) -> MemoryUse:
    return MemoryUse(host_bytes=host, gpu_bytes=gpu)


def resident(
    name: str, host: int = 10, *, idle_s: float = 100, reload_s: float = 1, **fields: object
) -> Resident:
    described = Resident(
        model=ModelVersion(name, "1"),
        memory=bytes_of(host),
        evictable=True,
        in_use=False,
        used_s=NOW_S - idle_s,
        loaded_s=NOW_S - 500,
        reload_s=reload_s,
    )
    return replace(described, **fields)  # type: ignore[arg-type]


LIMITS = EvictionLimits(capacity=bytes_of(30), min_idle_s=5, min_residence_s=20)


def check(residents: list[Resident], need: int, *expected: str) -> None:
    choice = choose_victims(NOW_S, residents, bytes_of(need), LIMITS)
    assert isinstance(choice, Victims)
    assert [model.model for model in choice.models] == list(expected)


def refused(residents: list[Resident], need: MemoryUse, limits: EvictionLimits = LIMITS) -> NoRoom:
    choice = choose_victims(NOW_S, residents, need, limits)
    assert isinstance(choice, NoRoom)
    return choice


def test_nobody_goes_where_there_is_room() -> None:
    check([resident("a"), resident("b")], 10)


def test_the_longest_idle_goes_first() -> None:
    check([resident("a", idle_s=50), resident("b", idle_s=60), resident("c", idle_s=40)], 10, "b")


def test_what_loads_slowly_is_worth_keeping() -> None:
    check(
        [resident("slow", idle_s=60, reload_s=10), resident("quick", idle_s=50), resident("c", idle_s=40)],
        10,
        "quick",
    )


def test_a_small_one_stays_where_a_big_one_goes_anyway() -> None:
    check([resident("small", 5, idle_s=90), resident("big", 20, idle_s=80)], 20, "big")


def test_pinned_used_and_fresh_ones_stay() -> None:
    stay = [
        resident("pinned", evictable=False),
        resident("used", idle_s=1),
        resident("asked", in_use=True),
        resident("fresh", loaded_s=NOW_S - 10),
    ]
    check([*stay[:2], resident("idle")], 10, "idle")
    for one in stay[1:]:
        choice = refused([one, stay[0], resident("pinned2", evictable=False)], bytes_of(10))
        assert not choice.never
        assert 0 < choice.retry_after_s <= 20


def test_it_tells_when_to_come_back() -> None:
    choice = refused([resident("fresh", 30, loaded_s=NOW_S - 13)], bytes_of(10))
    assert choice.retry_after_s == pytest.approx(7)


def test_what_can_never_fit_is_refused_with_figures() -> None:
    mib = 2**20
    limits = EvictionLimits(capacity=bytes_of(64 * mib))
    choice = refused([resident("stays", 32 * mib, evictable=False)], bytes_of(40 * mib), limits)
    assert choice.never
    assert (
        choice.reason == "needs 40.0 MiB, and of 64.0 MiB for bundles 32.0 MiB are held by bundles that stay"
    )


def test_the_gpu_counts_by_itself() -> None:
    limits = replace(LIMITS, capacity=bytes_of(0, 10))
    residents = [resident("host", 10_000, idle_s=300), resident("gpu", memory=bytes_of(1, 8))]
    choice = choose_victims(NOW_S, residents, bytes_of(5, 5), limits)
    assert choice == Victims((ModelVersion("gpu", "1"),))


memories = st.builds(bytes_of, st.integers(0, 50), st.integers(0, 20))
residents_st = st.lists(
    st.builds(
        resident,
        name=st.uuids().map(str),
        memory=memories,
        idle_s=st.floats(0, 400),
        loaded_s=st.floats(NOW_S - 500, NOW_S),
        reload_s=st.floats(0, 30),
        evictable=st.booleans(),
        in_use=st.booleans(),
    ),
    max_size=12,
)
limits_st = st.builds(
    EvictionLimits,
    capacity=st.builds(bytes_of, st.integers(0, 200), st.integers(0, 60)),
    min_idle_s=st.floats(0, 50),
    min_residence_s=st.floats(0, 100),
)


def fits(total: MemoryUse, capacity: MemoryUse) -> bool:
    host = not capacity.host_bytes or total.host_bytes <= capacity.host_bytes
    return host and (not capacity.gpu_bytes or total.gpu_bytes <= capacity.gpu_bytes)


def total_of(residents: list[Resident], need: MemoryUse) -> MemoryUse:
    return sum((one.memory for one in residents), need)


@given(residents=residents_st, need=memories, limits=limits_st)
def test_for_all_residents(residents: list[Resident], need: MemoryUse, limits: EvictionLimits) -> None:
    choice = choose_victims(NOW_S, residents, need, limits)
    assert choice == choose_victims(NOW_S, list(reversed(residents)), need, limits)
    by_model = {one.model: one for one in residents}
    if isinstance(choice, Victims):
        gone = [by_model[model] for model in choice.models]
        stay = [one for one in residents if one not in gone]
        assert fits(total_of(stay, need), limits.capacity)
        for victim in gone:
            assert victim.evictable
            assert not victim.in_use
            assert NOW_S - victim.used_s >= limits.min_idle_s - 1e-6
            assert NOW_S - victim.loaded_s >= limits.min_residence_s - 1e-6
            # None goes for nothing.
            assert not fits(total_of([*stay, victim], need), limits.capacity)
    else:
        fixed = [one for one in residents if not one.evictable]
        assert choice.never == (not fits(total_of(fixed, need), limits.capacity))
        assert choice.never or choice.retry_after_s > 0


@given(residents=residents_st, limits=limits_st, need=memories)
def test_whoever_comes_back_as_told_finds_room(
    residents: list[Resident], limits: EvictionLimits, need: MemoryUse
) -> None:
    choice = choose_victims(NOW_S, residents, need, limits)
    if isinstance(choice, NoRoom) and not choice.never:
        ended = [replace(one, in_use=False, used_s=NOW_S if one.in_use else one.used_s) for one in residents]
        later_s = NOW_S + choice.retry_after_s + 1e-6
        assert isinstance(choose_victims(later_s, ended, need, limits), Victims)


def test_nothing_is_needed_of_an_empty_shard() -> None:
    assert choose_victims(NOW_S, [], NOTHING, EvictionLimits()) == Victims(())


@pytest.mark.parametrize("wrong", [{"min_idle_s": -1}, {"min_residence_s": -1}, {"capacity": bytes_of(-1)}])
def test_limits_must_make_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        EvictionLimits(**wrong)  # type: ignore[arg-type]
