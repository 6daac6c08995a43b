"""Embedding a catalogue by command, and having a live release use it."""

import asyncio
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.commands.catalogue import release_with
from deploy.workspace import Workspace
from router.client import HeadraceClient
from router.router_config import RouterConfig
from router.router_server import Router
from shards.errors import InvalidInput
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.deploy.commands import Ran, headrace
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.training.catalogue_slice import KNOWN, MODEL, real_items, write_model

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="embedding", model=MODEL, k=50),),
    retrieval_budget_ms=3_000,
    attributes=("title",),
)


@pytest.fixture(scope="module")
def items() -> pa.Table:
    return real_items()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, items: pa.Table) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("catalogue"))
    write_model(workspace.models_dir, items)
    pq.write_table(items, workspace.root / "items.parquet")
    return workspace


AS_BIG = ("--as", "big", "--partitions", "2", "--block-items", "1000")


def catalogue(workspace: Workspace, *arguments: str) -> Ran:
    here = ("--workspace", str(workspace.root), "--workers", "0")
    command, *options = arguments
    return headrace("catalogue", command, str(MODEL), str(workspace.root / "items.parquet"), *options, *here)


def test_a_catalogue_is_embedded(workspace: Workspace, items: pa.Table) -> None:
    done = catalogue(workspace, "embed", *AS_BIG, "--json")
    assert done.code == 0, done.error
    assert json.loads(done.out) == {
        "model": "gifts-embedding@big",
        "bundles": ["gifts-embedding.0-of-2@big", "gifts-embedding.1-of-2@big"],
        "items": len(items),
        "blocks": -(-len(items) // 1000),
        "blocks_embedded": -(-len(items) // 1000),
        "bundles_written": 2,
    }


def test_a_live_release_finds_what_it_did_not_know_before(
    workspace: Workspace, items: pa.Table, tmp_path: Path
) -> None:
    """What an earlier command embedded is not embedded again; the release before answers meanwhile."""
    new, title = (items.column(name)[KNOWN + 7].as_py() for name in ("item_id", "title"))
    (tmp_path / "models").symlink_to(workspace.models_dir)

    async def main() -> None:
        async with (
            in_process_shards(tmp_path / "state") as host,
            running_controller(tmp_path, host) as controller,
        ):
            await controller.deploy(RELEASE)
            config = RouterConfig(controller=controller.address, default_deadline_s=5.0, grace_s=0.0)
            async with Router(config) as router:
                await router.ready()
                async with HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client:
                    options = (*AS_BIG, "--surface", "gifts", "--controller", controller.address)
                    done = asyncio.create_task(asyncio.to_thread(catalogue, workspace, "deploy", *options))
                    answers = []
                    while not done.done():
                        answers.append(await client.search("gifts", title, page_size=50))
                        await asyncio.sleep(0.05)
                    assert done.result().code == 0, done.result().error
                    assert "0 of them embedded now; 0 of 2 bundles written now" in done.result().err
                    answers.append(await client.search("gifts", title, page_size=50))
        assert all(answer.complete for answer in answers)
        assert (answers[0].release, answers[-1].release) == ("r1", "r1.big-2")
        assert new not in {item.item_id for item in answers[0].items}
        assert new in {item.item_id for item in answers[-1].items}

    asyncio.run(main())


def test_the_release_names_the_model_once_however_often_it_changes() -> None:
    twice = release_with(release_with(RELEASE, ModelVersion(MODEL.model, "1-a"), 2), MODEL, 1)
    assert twice.version == "r1.1-1"
    assert twice.channels == (ReleaseChannel(name="embedding", model=MODEL, k=50),)
    with pytest.raises(InvalidInput, match="'other' is the model of no channel of"):
        release_with(RELEASE, ModelVersion("other", "1"), 1)
