"""What the user stores cost: a read per search, and recording one by one, together and in large requests.

`make bench-users` writes `build/bench/users.json`. Redis is one of this host, whose log is on disk before it
answers, as LMDB's is.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from services.redis_settings import RedisSettings
from services.user_history import UserEvent
from services.user_store import UserStore
from services.user_store_opening import open_users
from services.user_store_settings import UserStoreSettings
from tests.bench.result import Check, at_least, at_most, publish
from tests.services.redis_server import RedisServer

READS = 300
ROUNDS = 9
LIMIT = 200
"""Events that a search reads, as a release asks for by default."""

USERS = 2_000
RECORDING_S = 2.0
LATER = 10**15

_numbers = itertools.count()


def main() -> None:
    """Measure both stores and publish."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures["lmdb"] = asyncio.run(_measured(Path(folder) / "users.lmdb"))
        with RedisServer(Path(folder) / "redis") as server:
            figures["redis"] = asyncio.run(_measured(server.settings()))
            figures["redis"]["bytes_an_event_id"] = _bytes_each(server, "headrace:event-ids")
            figures["redis"]["bytes_an_event"] = _bytes_each(server, "headrace:events:full")
    settings = {"reads": READS, "rounds": ROUNDS, "limit": LIMIT, "users": USERS, "recording_s": RECORDING_S}
    publish("users", settings=settings, figures=figures, checks=_checks(figures))


def _checks(figures: dict[str, dict[str, float]]) -> list[Check]:
    """Return the checks: computing time where others may use the machine, too, and what comes of all."""
    return [
        at_most("LMDB: read of 50 events, computing", figures["lmdb"]["get_50_own_us"], 50.0, "us"),
        at_most("LMDB: read of 200 of 1,000, computing", figures["lmdb"]["get_1000_own_us"], 150.0, "us"),
        at_most("Redis: read of 50 events, computing", figures["redis"]["get_50_own_us"], 400.0, "us"),
        at_most("Redis: read of 200 of 1,000, computing", figures["redis"]["get_1000_own_us"], 800.0, "us"),
        at_least("LMDB: one by one, 32 at once", figures["lmdb"]["events_a_s_32"], 300.0, "events/s"),
        at_least("Redis: one by one, 32 at once", figures["redis"]["events_a_s_32"], 300.0, "events/s"),
        at_least("LMDB: 1,000 together", figures["lmdb"]["events_a_s_batches"], 2_000.0, "events/s"),
        at_least("Redis: 1,000 together", figures["redis"]["events_a_s_batches"], 2_000.0, "events/s"),
    ]


def _bytes_each(server: RedisServer, key: str) -> float:
    size_bytes, count = (int(server.tell(*words, key)[1:]) for words in (("MEMORY", "USAGE"), ("ZCARD",)))
    return size_bytes / count


async def _measured(place: Path | RedisSettings) -> dict[str, float]:
    """Return microseconds of a read by the length of the history, and events recorded in a second."""
    async with open_users(UserStoreSettings(place=place)) as store:
        await _fill(store)
        return {
            "get_50_us": await _get_us(store, "some", time.perf_counter),
            "get_50_own_us": await _get_us(store, "some", time.process_time),
            "get_1000_us": await _get_us(store, "full", time.perf_counter),
            "get_1000_own_us": await _get_us(store, "full", time.process_time),
            "events_a_s_1": await _events_a_s(store, in_flight=1, together=1),
            "events_a_s_32": await _events_a_s(store, in_flight=32, together=1),
            "events_a_s_batches": await _events_a_s(store, in_flight=2, together=1_000),
        }


async def _fill(store: UserStore) -> None:
    for user_id, count in (("some", 50), ("full", 1_000)):
        events = {f"{user_id} {n}": _event(user_id, n) for n in range(count)}
        await store.record(events, timeout_s=30.0)
    await store.load({"some": {"country": "uk", "age": 33.0}}, [_event("some", n) for n in range(50)])


def _event(user_id: str, number: int) -> UserEvent:
    return UserEvent(user_id=user_id, item_id=f"item-{number:06d}", action="click", timestamp_ms=number)


async def _get_us(store: UserStore, user_id: str, clock: Callable[[], float]) -> float:
    """Return what a read takes, by the wall's clock or of this process's computing time."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = clock()
        for _ in range(READS):
            await store.get(user_id, LATER, LIMIT)
        rounds.append((clock() - began_s) / READS)
    return 1e6 * median(rounds)


async def _events_a_s(store: UserStore, *, in_flight: int, together: int) -> float:
    began_s = time.perf_counter()
    counts = await asyncio.gather(
        *(_record(store, began_s + RECORDING_S, together) for _ in range(in_flight))
    )
    return sum(counts) / (time.perf_counter() - began_s)


async def _record(store: UserStore, until_s: float, together: int) -> int:
    """Record events of many users, one request after the other; returns how many."""
    count = 0
    while time.perf_counter() < until_s:
        events = {f"n{n}": _event(f"u{n % USERS}", n) for n in _some(together)}
        count += (await store.record(events, timeout_s=30.0)).recorded
    return count


def _some(count: int) -> Iterator[int]:
    return itertools.islice(_numbers, count)


if __name__ == "__main__":
    main()
