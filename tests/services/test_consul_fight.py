"""Two controllers in processes of their own fight for one placement; its history must not fork."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path

from services.consul_client import ConsulClient
from services.consul_leadership import leader
from services.consul_placement_store import ConsulPlacementStore
from services.consul_settings import ConsulSettings
from shards.placement import Placement
from tests.services.consul_agent import ConsulAgent

NAMES = "one", "two"
ROUNDS = 3


def history(folder: Path, name: str) -> list[int]:
    """Return the generations that a contender saw committed; the last line may be half written."""
    log = folder / f"{name}.log"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [int(line) for line in lines if line.endswith("\n")]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


async def leads(settings: ConsulSettings) -> str | None:
    async with ConsulClient(settings) as client:
        return await leader(client)


async def watched(settings: ConsulSettings, seen: list[Placement]) -> None:
    """Note every placement that a router would see."""
    async with (
        ConsulClient(settings) as client,
        aclosing(ConsulPlacementStore(client).watch(0, random.Random(1))) as told,
    ):
        async for placement in told:
            seen += [placement]


def test_a_leader_that_wakes_up_after_its_successor_took_over_commits_nothing(
    consul_agent: ConsulAgent, tmp_path: Path
) -> None:
    settings = consul_agent.settings("fight")
    seen: list[Placement] = []

    def fight(processes: dict[str, subprocess.Popen[bytes]]) -> None:
        for _ in range(ROUNDS):
            wait_until(lambda: asyncio.run(leads(settings)) in NAMES)
            first = asyncio.run(leads(settings))
            assert first is not None
            (second,) = set(NAMES) - {first}
            wait_until(lambda name=first: len(history(tmp_path, name)) > 10)  # type: ignore[misc]
            known = len(history(tmp_path, second))
            processes[first].send_signal(signal.SIGSTOP)
            stopped_s = time.monotonic()
            wait_until(lambda name=second, n=known: len(history(tmp_path, name)) > n + 10)  # type: ignore[misc]
            assert time.monotonic() - stopped_s < 5.0
            processes[first].send_signal(signal.SIGCONT)
            known = len(history(tmp_path, second))
            wait_until(lambda name=second, n=known: len(history(tmp_path, name)) > n + 50)  # type: ignore[misc]
            # Now the other way round.
            assert asyncio.run(leads(settings)) == second

    async def main(processes: dict[str, subprocess.Popen[bytes]]) -> Placement:
        watch = asyncio.create_task(watched(settings, seen))
        await asyncio.to_thread(fight, processes)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        async with ConsulClient(settings) as client:
            return await ConsulPlacementStore(client).read()

    with ExitStack() as exits:
        processes = {}
        for name in NAMES:
            arguments = (consul_agent.address, "fight", name, str(tmp_path))
            process = subprocess.Popen((sys.executable, "-m", "tests.services.consul_contender", *arguments))
            exits.callback(process.wait)
            exits.callback(process.kill)
            processes[name] = process
        last = asyncio.run(main(processes))

    one, two = (history(tmp_path, name) for name in NAMES)
    assert set(one).isdisjoint(two), "each generation has one author"
    assert min(len(one), len(two)) > 50
    authors = {generation: name for name in NAMES for generation in history(tmp_path, name)}
    for placement in seen:
        # Who was stopped between the commit and its note has written nothing down.
        author = authors.get(placement.generation)
        assert author is None or placement.endpoints == {"leader": f"{author}:1"}
    generations = [placement.generation for placement in seen]
    assert generations == sorted(set(generations))
    # Of a commit whose answer was lost no note was taken; there is one at most each time a leader ended.
    assert last.generation - len(authors) <= 2 * ROUNDS + 2
