"""What the hop over a router costs a call of one stage: the same calls through it and straight to the shard.

`make bench-client` writes `build/bench/client.json`. Shard, router and this client are three processes of one
host; the shard holds the small bundles of the tests (200 items), so that little but the way is measured. Both
ways take turns, call by call, on connections that are open.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from router.client import HeadraceClient, StageList, StageResult
from services.codec import placement_to_proto
from shards.search_context import SearchContext, UserState
from tests.bench.result import Check, at_least, publish
from tests.bench.spread import quantiles_ms
from tests.deploy.router_processes import router_processes
from tests.router.real_shards import Models, shard_process
from tests.router.scripted_controller import ScriptedController
from tests.shards.bundles import NOW_MS, build_models

CALLS = 1_500
"""Of each method and way, one after the other, after a tenth as many that are not counted."""

TOGETHER, BLOCK_S, BLOCKS = 4, 2.0, 5
"""Calls in flight at once, for so long, in turn."""

SEARCH = SearchContext(query="red mug", user=UserState(user_id="u1"), now_ms=NOW_MS)
WAYS = "routed", "direct"

Call = Callable[[HeadraceClient], Awaitable[StageResult]]


def main() -> None:
    """Measure both ways and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--block-s", type=float, default=BLOCK_S)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(_measured(Path(folder), asked.calls, asked.block_s))
    settings = {"calls": asked.calls, "together": TOGETHER, "block_s": asked.block_s, "blocks": BLOCKS}
    publish("client", settings=settings, figures=figures, checks=_checks(figures))


def _checks(figures: dict[str, dict[str, dict[str, float]]]) -> list[Check]:
    """Return the checks: what it is for is that the way without a hop is the better one."""
    checks = []
    for method, ways in figures.items():
        routed, direct = (ways[way] for way in WAYS)
        more = direct["calls_s"] / routed["calls_s"]
        checks += [
            at_least(f"{method}: p50 that the hop costs", routed["p50"] - direct["p50"], 0.0, "ms"),
            at_least(f"{method}: calls/s direct, of those routed", more, 1.0),
        ]
    return checks


async def _measured(folder: Path, calls: int, block_s: float) -> dict[str, dict[str, dict[str, float]]]:
    root = folder / "models"
    models = Models(root=root, release=build_models(root, 7))
    async with AsyncExitStack() as stack:
        shard = await stack.enter_async_context(shard_process(models, folder, "s1"))
        placement = models.placed_on({"s1": shard.address})
        routers = await stack.enter_async_context(router_processes(placement, folder / "router"))
        told = placement_to_proto(placement)
        controller = await stack.enter_async_context(ScriptedController(told, address=routers.controller))
        await routers.start()
        routed = await stack.enter_async_context(HeadraceClient(routers.target, timeout_s=10.0))
        direct = await stack.enter_async_context(
            HeadraceClient(routers.target, controller=controller.address, timeout_s=10.0)
        )
        await direct.placement_known()
        clients = dict(zip(WAYS, (routed, direct), strict=True))
        found = (await _retrieve(models)(routed)).candidates
        methods = {"retrieve": _retrieve(models), "rank": _rank(models, found)}
        return {name: await _ways(call, clients, calls, block_s) for name, call in methods.items()}


def _retrieve(models: Models) -> Call:
    model = models.release.channels[-1].model
    return lambda client: client.retrieve(model.model, SEARCH, k=100, version=model.version)


def _rank(models: Models, found: StageList) -> Call:
    assert models.release.ranker is not None
    model = models.release.ranker.model
    plain = StageList(item_ids=found.item_ids)
    return lambda client: client.rank(model.model, SEARCH, plain, version=model.version)


async def _ways(
    call: Call, clients: dict[str, HeadraceClient], calls: int, block_s: float
) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(calls + calls // 10):
        for way, client in clients.items():
            began_s = time.perf_counter()
            result = await call(client)
            taken_s = time.perf_counter() - began_s
            assert result.direct is (way == "direct"), f"a call went another way than it should: {result}"
            if turn >= calls // 10:
                seconds[way].append(taken_s)
    for _ in range(BLOCKS):
        for way, client in clients.items():
            rates[way].append(await _rate(call, client, block_s))
    return {
        way: quantiles_ms(seconds[way]) | {"calls_s": round(float(np.median(rates[way])), 1)} for way in WAYS
    }


async def _rate(call: Call, client: HeadraceClient, block_s: float) -> float:
    """Return calls a second with `TOGETHER` of them in flight."""
    began_s = time.perf_counter()

    async def one_by_one() -> int:
        count = 0
        while time.perf_counter() < began_s + block_s:
            await call(client)
            count += 1
        return count

    counts: Sequence[int] = await asyncio.gather(*(one_by_one() for _ in range(TOGETHER)))
    return sum(counts) / (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
