import asyncio
from pathlib import Path

import pytest

from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import Committed, Conflict, FilePlacementStore, MemoryPlacementStore
from shards.errors import CorruptRecord
from shards.placement import Placement


def placement(generation: int) -> Placement:
    return Placement(generation=generation, endpoints={"shard-0": "127.0.0.1:4000"})


def test_what_the_primary_has_beyond_the_mirror_is_mirrored(tmp_path: Path) -> None:
    async def main() -> None:
        mirror = FilePlacementStore(tmp_path / "placement.json")
        store = MirroredPlacementStore(MemoryPlacementStore(placement(7)), mirror)
        assert await store.read() == placement(7)
        assert await mirror.read() == placement(7)
        assert await store.commit(7, placement(8)) == Committed(placement(8))
        assert await mirror.read() == placement(8)

    asyncio.run(main())


@pytest.mark.parametrize("held", [Placement(), placement(3)], ids=["emptied", "went back"])
def test_a_primary_that_went_back_gets_the_mirrored_placement_on_read(held: Placement) -> None:
    async def main() -> None:
        primary = MemoryPlacementStore(held)
        store = MirroredPlacementStore(primary, MemoryPlacementStore(placement(7)))
        assert await store.read() == placement(7)
        assert await primary.read() == placement(7)

    asyncio.run(main())


@pytest.mark.parametrize("held", [Placement(), placement(3)], ids=["emptied", "went back"])
def test_a_primary_that_went_back_is_repaired_by_a_commit(held: Placement) -> None:
    async def main() -> None:
        store = MirroredPlacementStore(MemoryPlacementStore(held), MemoryPlacementStore(placement(7)))
        assert await store.commit(7, placement(8)) == Committed(placement(8))
        assert await store.commit(7, placement(9)) == Conflict(placement(8))

    asyncio.run(main())


@pytest.mark.parametrize("expected", [0, 3])
def test_a_commit_on_a_generation_before_the_mirrored_one_is_a_conflict(expected: int) -> None:
    async def main() -> None:
        primary = MemoryPlacementStore()
        store = MirroredPlacementStore(primary, MemoryPlacementStore(placement(7)))
        assert await store.commit(expected, placement(expected + 1)) == Conflict(placement(7))
        assert await primary.read() == placement(7)

    asyncio.run(main())


def test_a_damaged_mirror_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "placement.json").write_bytes(b"{")
    store = MirroredPlacementStore(MemoryPlacementStore(), FilePlacementStore(tmp_path / "placement.json"))
    with pytest.raises(CorruptRecord, match=r"placement\.json"):
        asyncio.run(store.read())
