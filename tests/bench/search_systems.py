"""The systems that `make bench-search` compares, each started for its turn and ended after it.

Nothing of one system runs in the turn of another, so that daemons which never rest cost nobody else. Each has
one process for a stage or for all of them, with one computing thread, as a shard has by default.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.release_files import write_release
from deploy.settings import ClusterSettings
from deploy.workspace import Workspace
from services.durable_file import replace_file
from services.placement_json import placement_to_json
from services.shard_config import ShardConfig
from services.shard_process import command
from services.shard_record import HeldBundle, ShardRecord, write_record
from shards.release import ModelVersion, Stage
from shards.replica import ReplicaState
from tests.bench.child_process import START_TIMEOUT_S, Child, child_process
from tests.bench.search_caller import Asker, asker
from tests.bench.search_requests import Material
from tests.router.running_router import placed
from tests.services.shard_client import connect

_QUEUE = 1_024
_SERVING = {"router": {"limit": {"floor": 64}}}
"""Nothing is refused here, on shards or the router: what happens under overload is another benchmark's."""


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


def fused(shards: int) -> System:
    """Return Headrace with all bundles on each of so many shards; `headrace up` starts two."""
    return System(
        key="a" if shards == 2 else f"a{shards}",
        name=f"Headrace, fused, {shards} shard{'s'[: shards > 1]}",
        run=lambda material, folder: _headrace(material, folder, [_stages(material)] * shards),
    )


def split() -> System:
    """Return Headrace with a shard for each stage."""
    return System(
        key="b",
        name="Headrace, three shards",
        run=lambda material, folder: _headrace(material, folder, [[stage] for stage in _stages(material)]),
    )


def _stages(material: Material) -> Sequence[Stage]:
    """Return the stages of the release, in the order of the cascade."""
    return list(dict.fromkeys(material.release.models().values()))


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
def _headrace(material: Material, folder: Path, shards: Sequence[Sequence[Stage]]) -> Iterator[Running]:
    """Run the processes of a cluster that serve: a shard for each of these sets of stages, and a router.

    The placement is in the router's cache. Controller and Ray are on no request's path, and so left out.
    """
    placed_models = {
        f"shard-{number}": {model: s for model, s in material.release.models().items() if s in stages}
        for number, stages in enumerate(shards)
    }
    with ExitStack() as stack:
        # All at once: each imports for seconds.
        children = {
            shard_id: stack.enter_context(_shard(material, folder, shard_id, models))
            for shard_id, models in placed_models.items()
        }
        addresses = {shard_id: child.told()["address"] for shard_id, child in children.items()}
        for shard_id, models in placed_models.items():
            asyncio.run(_loaded(addresses[shard_id], models))
        holders = {
            str(model): [s for s, models in placed_models.items() if model in models]
            for model in material.release.models()
        }
        serving_path = folder / "serving.json"
        serving_path.write_text(json.dumps(_SERVING))
        settings = ClusterSettings(
            workspace=str(folder),
            serving_path=str(serving_path),
            user_store=str(material.workspace.users_path.absolute()),
            supervised=False,
        )
        placement = placed([material.release], holders, addresses)
        replace_file(settings.folders.router_cache_path, placement_to_json(placement))
        arguments = ("-m", "deploy.router_process", str(os.getpid()), settings.to_argument())
        children["router"] = stack.enter_context(child_process([sys.executable, *arguments], folder))
        caller = _caller(material, [children["router"].told()["address"]])
        yield Running(
            asker=stack.enter_context(caller),
            processes={name: child.pid for name, child in children.items()},
        )


def _shard(
    material: Material, folder: Path, shard_id: str, models: Mapping[ModelVersion, Stage]
) -> AbstractContextManager[Child]:
    """Return a shard that finds its bundles on its record, as if it had held them in its life before."""
    config = ShardConfig(shard_id=shard_id, state_dir=folder, max_queue=_QUEUE, queue_share=1.0)
    write_record(config.record_path, ShardRecord(bundles=_bundles(material, models)))
    return child_process(command(config), folder)


def _bundles(material: Material, models: Mapping[ModelVersion, Stage]) -> tuple[HeldBundle, ...]:
    root = material.workspace.models_dir.absolute()
    return tuple(
        HeldBundle(model=model, stage=stage, path=root / model.model / model.version)
        for model, stage in models.items()
    )


async def _loaded(address: str, models: Mapping[ModelVersion, Stage]) -> None:
    async with connect(address) as client:
        await client.wait_for(dict.fromkeys(models, ReplicaState.READY), START_TIMEOUT_S)


@contextmanager
def _ray_serve(material: Material, folder: Path, replicas: int, *, optimised: bool) -> Iterator[Running]:
    arguments = (str(material.workspace.root), str(_release_file(material, folder)), str(replicas))
    mode = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1" if optimised else "0"}
    serving = [sys.executable, "-m", "tests.bench.ray_serve_process", *arguments]
    with ExitStack() as stack:
        child = stack.enter_context(child_process(serving, folder, mode))
        caller = _caller(material, child.told())
        yield Running(asker=stack.enter_context(caller), processes={"ray": child.pid})


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
