"""One of two replicas becomes sick: what searches then take, against before. Part of `make bench-overload`.

The shards are scripted servers on loopback, in this process as the router is: what is measured is what the
router makes of answers that are slow, wrong or missing.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from router.client import HeadraceClient, SearchError
from shards.candidates import Candidates
from shards.errors import HeadraceError
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.bench.result import Check, at_most
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_shard import Call, ScriptedShard, hang

RATE_PER_S = 60.0
TAKES_S = 0.01
SETTLES_S = 2.0
MODEL = "words@1"
RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=1_000,
)

Figures = dict[str, Any]


async def _well(_: Call) -> Candidates:
    await asyncio.sleep(TAKES_S)
    return ranked("a", "b")


def _slow(shard: ScriptedShard) -> None:
    async def answer(_: Call) -> Candidates:
        await asyncio.sleep(50 * TAKES_S)
        return ranked("a", "b")

    shard.answers[MODEL] = answer


def _failing(shard: ScriptedShard) -> None:
    turns = itertools.count()

    async def answer(call: Call) -> Candidates:
        if next(turns) % 2:
            raise HeadraceError("a fault of this shard")
        return await _well(call)

    shard.answers[MODEL] = answer


def _hung(shard: ScriptedShard) -> None:
    shard.answers[MODEL] = hang


def _garbled(shard: ScriptedShard) -> None:
    shard.garbled = b"\xff\xfe\x00garbage"


SICKNESSES: dict[str, Callable[[ScriptedShard], None]] = {
    "answers 50x slower": _slow,
    "fails half of its calls": _failing,
    "hangs": _hung,
    "sends garbage": _garbled,
}


def measure(*, short: bool) -> Figures:
    """Return for each sickness what searches took before, at once, and after two seconds."""
    seconds = 3.0 if short else 12.0
    return {name: asyncio.run(_measure(sicken, seconds)) for name, sicken in SICKNESSES.items()}


async def _measure(sicken: Callable[[ScriptedShard], None], seconds: float) -> Figures:
    async with AsyncExitStack() as exits:
        shards = [
            await exits.enter_async_context(ScriptedShard(name, {MODEL: _well})) for name in ("s1", "s2")
        ]
        addresses = {shard.shard_id: shard.address for shard in shards}
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        placement = placed([RELEASE], {MODEL: addresses}, addresses)
        router = await exits.enter_async_context(running(placement, folder))
        client = await exits.enter_async_context(
            HeadraceClient(router.address, timeout_s=2.0, max_attempts=1)
        )
        await _phase(client, 1.0)
        before = await _phase(client, seconds)
        sicken(shards[0])
        shards[0].calls.clear()
        at_once = await _phase(client, SETTLES_S)
        asked_at_once = len(shards[0].calls)
        settled = await _phase(client, seconds)
        return {
            "before": before,
            "first_2_s": at_once | {"asked_of_the_sick_shard": asked_at_once},
            "settled": settled | {"asked_of_the_sick_shard": len(shards[0].calls) - asked_at_once},
        }


async def _phase(client: HeadraceClient, seconds: float) -> Figures:
    """Search at the rate for so long, whether the router keeps up or not."""
    took_s: list[float] = []
    failures: list[str] = []
    started_s = time.monotonic()

    async def search(due_s: float) -> None:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        sent_s = time.monotonic()
        try:
            result = await client.search("gifts", "mug")
        except SearchError as error:
            failures.append(str(error))
            return
        took_s.append(time.monotonic() - sent_s)
        if not result.complete:
            failures.append(str(result.gaps))

    count = round(seconds * RATE_PER_S)
    await asyncio.gather(*(search(started_s + n / RATE_PER_S) for n in range(count)))
    ordered = sorted(took_s)
    return {
        "searches": count,
        "failures": failures[:10],
        "failed": len(failures),
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(0.99 * len(ordered))] * 1e3,
    }


def checks_of(figures: Figures) -> list[Check]:
    """Return the figures beside their aims."""
    checks = []
    for name, phases in figures.items():
        failed = phases["first_2_s"]["failed"] + phases["settled"]["failed"]
        ratio = phases["settled"]["p99_ms"] / phases["before"]["p99_ms"]
        checks.append(at_most(f"a shard that {name}: failed searches", failed, 0))
        checks.append(at_most(f"a shard that {name}: p99 after 2 s, against before", ratio, 2.0, "x"))
    return checks
