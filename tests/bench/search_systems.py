"""The systems that `make bench-search` compares, each started for its turn and ended after it.

Nothing of one system runs in the turn of another, so that daemons which never rest cost nobody else. Each has
one process for a stage or for all of them, with one computing thread, as a shard has by default.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.processes import descendants, processes
from deploy.release_files import write_release
from deploy.settings import PROJECT_ROOT, ClusterSettings, child_environment
from deploy.workspace import Workspace
from services.durable_file import replace_file
from services.placement_json import placement_to_json
from services.shard_config import ShardConfig
from services.shard_process import command
from services.shard_record import HeldBundle, ShardRecord, write_record
from shards.cluster_state import ReplicaState
from shards.release import ModelVersion, Stage
from tests.bench.search_caller import Asker, asker
from tests.bench.search_requests import Material
from tests.router.running_router import placed
from tests.services.shard_client import connect

_QUEUE = 1_024
"""Room for every stage call of what is in flight: nothing is refused here."""

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 8.0
_LOG_CHARS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A system in its turn: whoever asks it, and its own processes by name, descendants not named."""

    asker: Asker
    processes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One way of serving: `run` starts it over the material, with a folder of its own."""

    key: str
    name: str
    run: Callable[[Material, Path], AbstractContextManager[Running]] = field(repr=False)


def fused() -> System:
    """Return Headrace with all bundles on one shard."""
    return System(
        key="a",
        name="Headrace, fused",
        run=lambda material, folder: _headrace(material, folder, {"shard-0": tuple(Stage)}),
    )


def split() -> System:
    """Return Headrace with a shard for each stage."""
    shards = {f"shard-{number}": (stage,) for number, stage in enumerate(Stage)}
    return System(
        key="b",
        name="Headrace, three shards",
        run=lambda material, folder: _headrace(material, folder, shards),
    )


def ray_serve(replicas: int) -> System:
    """Return Ray Serve as it is installed."""
    return System(
        key="c",
        name="Ray Serve",
        run=lambda material, folder: _ray_serve(material, folder, replicas, optimised=False),
    )


def ray_serve_optimised(replicas: int) -> System:
    """Return Ray Serve in the mode that it has for throughput."""
    return System(
        key="t",
        name="Ray Serve, optimised",
        run=lambda material, folder: _ray_serve(material, folder, replicas, optimised=True),
    )


def in_process(workers: int) -> System:
    """Return the same arithmetic without any call over a wire."""
    return System(
        key="d" if workers == 1 else f"d{workers}",
        name=f"one process, {workers} thread{'s'[: workers > 1]}",
        run=lambda material, folder: _in_process(material, folder, workers),
    )


@contextmanager
def _headrace(material: Material, folder: Path, shards: Mapping[str, Sequence[Stage]]) -> Iterator[Running]:
    """Run the processes of a cluster that serve: shards that hold the bundles of their stages, and a router.

    The placement is in the router's cache. Controller and Ray are on no request's path, and so left out.
    """
    with ExitStack() as stack:
        roots, addresses, holders = dict[str, int](), dict[str, str](), dict[str, list[str]]()
        for shard_id, stages in shards.items():
            models = {model: s for model, s in material.release.models().items() if s in stages}
            config = ShardConfig(shard_id=shard_id, state_dir=folder, max_queue=_QUEUE)
            write_record(config.record_path, ShardRecord(bundles=_bundles(material, models)))
            told, roots[shard_id] = stack.enter_context(_process(command(config), folder))
            addresses[shard_id] = told["address"]
            holders |= {str(model): [shard_id] for model in models}
            asyncio.run(_loaded(told["address"], models))
        settings = ClusterSettings(
            workspace=str(folder),
            user_store=str(material.workspace.users_path.absolute()),
            supervised=False,
        )
        placement = placed([material.release], holders, addresses)
        replace_file(settings.folders.router_cache_path, placement_to_json(placement))
        arguments = ("-m", "deploy.router_process", str(os.getpid()), settings.to_argument())
        told, roots["router"] = stack.enter_context(_process([sys.executable, *arguments], folder))
        yield Running(
            asker=stack.enter_context(_caller(material, [told["address"]])),
            processes=roots,
        )


def _bundles(material: Material, models: Mapping[ModelVersion, Stage]) -> tuple[HeldBundle, ...]:
    root = material.workspace.models_dir.absolute()
    return tuple(
        HeldBundle(model=model, stage=stage, path=root / model.model / model.version)
        for model, stage in models.items()
    )


async def _loaded(address: str, models: Mapping[ModelVersion, Stage]) -> None:
    async with connect(address) as client:
        await client.wait_for(dict.fromkeys(models, ReplicaState.READY), _START_TIMEOUT_S)


@contextmanager
def _ray_serve(material: Material, folder: Path, replicas: int, *, optimised: bool) -> Iterator[Running]:
    arguments = (str(material.workspace.root), str(_release_file(material, folder)), str(replicas))
    mode = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1" if optimised else "0"}
    serving = [sys.executable, "-m", "tests.bench.ray_serve_process", *arguments]
    with ExitStack() as stack:
        addresses, pid = stack.enter_context(_process(serving, folder, mode))
        yield Running(asker=stack.enter_context(_caller(material, addresses)), processes={"ray": pid})


@contextmanager
def _in_process(material: Material, folder: Path, workers: int) -> Iterator[Running]:
    arguments = (
        str(material.requests_path),
        str(material.workspace.root),
        str(_release_file(material, folder)),
        str(workers),
    )
    with asker("tests.bench.search_in_process", *arguments) as asking:
        yield Running(asker=asking, processes={"process": asking.process.pid})


def _caller(material: Material, addresses: Sequence[str]) -> AbstractContextManager[Asker]:
    return asker("tests.bench.search_caller", str(material.requests_path), *addresses)


def _release_file(material: Material, folder: Path) -> Path:
    return write_release(Workspace(folder), material.release)


@contextmanager
def _process(
    arguments: Sequence[str], folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, int]]:
    """Start a process and give the JSON of its first line, and its id; ends it with all that it started."""
    path = folder / "log"
    with (
        path.open("a") as log,
        subprocess.Popen(
            arguments,
            cwd=PROJECT_ROOT,
            env=child_environment(None) | dict(more or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            readable, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
            line = process.stdout.readline() if readable else ""
            if not line:
                raise RuntimeError(f"{arguments} does not serve: {path.read_text()[-_LOG_CHARS:]}")
            yield json.loads(line), process.pid
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    family = {each.pid: each.name for each in descendants(process.pid)}
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    left = [each.pid for each in processes() if family.get(each.pid) == each.name and not each.zombie]
    for pid in (process.pid, *left):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
