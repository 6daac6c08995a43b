"""What the user store in LMDB does beyond the contract: processes, restarts, crashes, full disks, damage."""

import asyncio
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from services.lmdb_user_store import LmdbUserStore
from services.user_history import EventLimits
from services.user_store import Recorded
from shards.errors import CorruptRecord, DeadlineExceeded, StoreFull, Unavailable
from shards.search_context import UserState
from tests.services.test_user_store import LATER, event, numbered


def items_of(path: Path, user_id: str = "u") -> tuple[str, ...]:
    with LmdbUserStore.open(path) as store:
        return asyncio.run(store.get(user_id, LATER, 100_000)).history.item_ids


def test_a_reopened_store_remembers_users_and_event_ids(tmp_path: Path) -> None:
    with LmdbUserStore.open(tmp_path / "users") as store:
        asyncio.run(store.load({"u": {"age": 1.0}}, [event("u", "a", 1)]))
        asyncio.run(store.record(numbered([event("u", "b", 2)])))
    with LmdbUserStore.open(tmp_path / "users") as store:
        assert asyncio.run(store.record(numbered([event("u", "b", 2)]))) == Recorded(recorded=0, duplicates=1)
    assert items_of(tmp_path / "users") == ("a", "b")


def test_a_smaller_limit_of_event_ids_forgets_the_oldest(tmp_path: Path) -> None:
    events = numbered([event("u", "a", n) for n in range(3_000)])
    with LmdbUserStore.open(tmp_path / "users", limits=EventLimits(events=10, event_ids=5_000)) as store:
        asyncio.run(store.record(events, timeout_s=30.0))
    with LmdbUserStore.open(tmp_path / "users", limits=EventLimits(events=10, event_ids=1_000)) as store:
        asyncio.run(store.record({"new": event("u", "a", 5_000)}))
        newest = dict(list(events.items())[-999:])
        assert asyncio.run(store.record(newest)).duplicates == 999
        assert asyncio.run(store.record({"e0": events["e0"]})).recorded == 1


def test_other_processes_read_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with (
        LmdbUserStore.open(path) as store,
        multiprocessing.get_context("spawn").Pool(2) as others,
    ):
        asyncio.run(store.load({}, [event("u", "a", 1)]))
        assert others.map(items_of, [path] * 2) == [("a",)] * 2
        counts = others.map_async(_record_shared, [path] * 2)
        ours = asyncio.run(_record_all(store))
        assert sum([ours, *counts.get(60)]) == 300
        assert others.map(items_of, [path]) == [("a", *(f"i{n}" for n in range(300)))]


def _record_shared(path: Path) -> int:
    with LmdbUserStore.open(path) as store:
        return asyncio.run(_record_all(store))


async def _record_all(store: LmdbUserStore) -> int:
    """Record events that other processes record, too; returns how many were new."""
    new = 0
    for number in range(300):
        came = await store.record({f"e{number}": event("u", f"i{number}", 10 + number)}, timeout_s=30.0)
        new += came.recorded
    return new


_WRITER = """
import asyncio, sys
from pathlib import Path
from services.lmdb_user_store import LmdbUserStore
from services.user_history import UserEvent

async def write(store):
    number = 0
    while True:
        events = {
            f"{sys.argv[2]}-{number}-{part}": UserEvent(
                user_id=f"u{part}", item_id=f"{sys.argv[2]}-{number}", action="click", timestamp_ms=number
            )
            for part in range(3)
        }
        await store.record(events, timeout_s=30.0)
        print(number, flush=True)
        number += 1

with LmdbUserStore.open(Path(sys.argv[1])) as store:
    asyncio.run(write(store))
"""


def test_a_writer_that_is_killed_loses_nothing_and_leaves_no_halves(tmp_path: Path) -> None:
    path = tmp_path / "users"
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), f"w{turn}"], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(20 + turn)]
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout.read().split()]
        # The lock went on with the writer dead: a store that is opened next writes at once.
        with LmdbUserStore.open(path) as store:
            asyncio.run(store.record({f"after {turn}": event("other", "a", 1)}))
        found = [
            {item for item in items_of(path, f"u{part}") if item.startswith(f"w{turn}-")} for part in range(3)
        ]
        assert {f"w{turn}-{number}" for number in acknowledged} <= found[0]
        assert found[0] == found[1] == found[2]
        assert len(found[0]) <= len(acknowledged) + 1


def test_a_full_store_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def main() -> None:
        recorded = 0
        with LmdbUserStore.open(tmp_path / "users", size_limit_bytes=512 * 1024) as store:

            async def fill() -> None:
                nonlocal recorded
                for recorded in range(1_000):
                    events = [event(f"u{recorded}-{n}", "item " * 20, 1) for n in range(50)]
                    await store.record(numbered(events, first=50 * recorded), timeout_s=30.0)

            with pytest.raises(StoreFull, match="no room left") as caught:
                await fill()
            assert caught.value.retry_after_s > 0
            assert recorded > 0
            for number in range(recorded):
                assert (await store.get(f"u{number}-49", LATER, 1)).history.item_ids
            assert await store.get(f"u{recorded}-0", LATER, 1) == UserState(user_id=f"u{recorded}-0")

    asyncio.run(main())


_FILLING = """
import asyncio, sys
from pathlib import Path
from services.lmdb_user_store import LmdbUserStore
from services.user_history import UserEvent
from shards.errors import StoreFull

def events(number):
    return {
        f"{number}-{n}": UserEvent(user_id=f"u{number}-{n}", item_id=400 * "i", action="c", timestamp_ms=n)
        for n in range(50)
    }

async def held(store, number):
    users = [await store.get(f"u{number}-{n}", 99, 99) for n in range(50)]
    return sum(len(user.history.item_ids) for user in users)

async def main(store, ballast):
    number = 0
    try:
        while True:
            await store.record(events(number), timeout_s=30.0)
            number += 1
    except StoreFull:
        pass
    assert number > 0
    assert [await held(store, n) for n in range(number + 1)] == [50] * number + [0]
    ballast.unlink()
    assert (await store.record(events(number), timeout_s=30.0)).recorded == 50
    assert (await store.record(events(number - 1), timeout_s=30.0)).duplicates == 50
    print("refused", number)

folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(b"x" * 2**20)
with LmdbUserStore.open(folder / "users") as store:
    asyncio.run(main(store, ballast))
"""


def test_a_full_disk_refuses_and_takes_more_when_there_is_room(tmp_path: Path) -> None:
    """In a file system of two MiB, which a user namespace of the test's own has."""
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this host lets nobody mount a small file system")
    program = [sys.executable, "-c", _FILLING, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && "$0" "$@"', *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.startswith("refused"), done.stderr


def test_a_writer_that_holds_the_lock_delays_writes_but_no_reads(tmp_path: Path) -> None:
    path = tmp_path / "users"

    async def main() -> None:
        with LmdbUserStore.open(path) as store:
            await store.record(numbered([event("u", "a", 1)]))
            with _held_elsewhere(path):
                with pytest.raises(DeadlineExceeded):
                    await store.record(numbered([event("u", "b", 2)], first=1), timeout_s=0.1)
                assert (await store.get("u", LATER, 9)).history.item_ids == ("a",)
                waiting = asyncio.gather(
                    *(
                        store.record(numbered([event("v", f"i{n}", n)], first=100 + n), timeout_s=30.0)
                        for n in range(200)
                    )
                )
                await asyncio.sleep(0)
            assert all(came.recorded == 1 for came in await waiting)
            assert len((await store.get("v", LATER, 999)).history.item_ids) == 200

    asyncio.run(main())


_HOLDER = """
import lmdb, sys
with lmdb.open(sys.argv[1], map_size=2**36, max_dbs=2) as environment, environment.begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


class _held_elsewhere:  # noqa: N801
    """Another process holds the lock of writers inside the block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(self._path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_a_place_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "no" / "such" / "folder"):
        with pytest.raises(Unavailable, match="user store"):
            LmdbUserStore.open(path)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CorruptRecord, match=str(tmp_path)):
        LmdbUserStore.open(tmp_path)


def _damage(path: Path, user_id: str, damaged: bytes | None, cut: int | None) -> None:
    with lmdb.open(str(path), map_size=2**30) as environment, environment.begin(write=True) as transaction:
        record = bytes(transaction.get(user_id.encode()) or b"")
        transaction.put(user_id.encode(), record[:cut] if damaged is None else damaged)


@pytest.mark.parametrize(
    ("damaged", "cut"), [(None, -1), (None, 6), (None, 20), (b"", None), (b"x" * 99, None)]
)
def test_a_corrupt_record_names_its_user(tmp_path: Path, damaged: bytes | None, cut: int | None) -> None:
    async def main() -> None:
        path = tmp_path / "users"
        with LmdbUserStore.open(path) as store:
            await store.load({}, [event("u", "a", 1), event("v", "a", 1)])
        _damage(path, "u", damaged, cut)
        with LmdbUserStore.open(path) as store:
            with pytest.raises(CorruptRecord, match="record 'u' is corrupt"):
                await store.get("u", LATER, 10)
            both = numbered([event("v", "b", 2), event("u", "b", 2)])
            with pytest.raises(CorruptRecord, match="record 'u' is corrupt"):
                await store.record(both)
            assert (await store.get("v", LATER, 10)).history.item_ids == ("a",)
            # One request's fault is not that of the others that are written with it.
            results = await asyncio.gather(
                store.record(both), store.record({"mine": event("v", "c", 3)}), return_exceptions=True
            )
            assert isinstance(results[0], CorruptRecord)
            assert results[1] == Recorded(recorded=1, duplicates=0)
            assert (await store.get("v", LATER, 10)).history.item_ids == ("a", "c")

    asyncio.run(main())
