"""Node programs without generated stubs search and record events."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.generate import ROOT as PROTOS
from services.access import AccessRules, Caller, Role, digest
from services.tls import Party
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import placed, running
from tests.services import certified
from tests.shards.bundles import SURFACE

SERVICES = {"headrace.v1.SearchService", "headrace.v1.RetrievalService", "grpc.health.v1.Health"}
LIVE = Release(
    surface=SURFACE, version="1", channels=(ReleaseChannel(name="ann", model=ModelVersion("tower", "1")),)
)
SOURCES = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages of the programs beside a copy of them; skips where that is not possible."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for source in SOURCES.iterdir():
        shutil.copy(source, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install: {installed.stderr.strip()[-200:]}")
    return folder


async def told(program: Path, *arguments: str, **settings: str) -> tuple[int, dict[str, Any]]:
    """Return the program's exit code and the object that it prints, with these HEADRACE_ settings."""
    node = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {f"HEADRACE_{name.upper()}": value for name, value in settings.items()},
    )
    output, _ = await node.communicate()
    found = json.loads(output)
    assert isinstance(found, dict)
    return node.returncode or 0, found


def test_finds_services_by_reflection_searches_and_records(
    programs: Path, models: Models, tmp_path: Path
) -> None:
    async def main() -> None:
        search, record = programs / "search.mjs", programs / "record.mjs"
        async with (
            real_shards(models, tmp_path, ["s1"]) as addresses,
            running(models.placed_on(addresses), tmp_path) as router,
        ):
            code, found = await told(search, router.address, SURFACE, "red mug", "u1")
            assert code == 0
            assert {
                "headrace.v1.SearchService",
                "headrace.v1.RetrievalService",
                "grpc.health.v1.Health",
            } <= set(found["services"])
            assert len(found["items"]) == 5
            assert all(item["attributes"]["title"] for item in found["items"])
            assert found["coverage"]["complete"] is True

            event = [router.address, "u1", found["items"][0]["item_id"], "click", "event-1"]
            assert await told(record, *event) == (0, {"recorded": 1, "duplicates": 0})
            assert await told(record, *event) == (0, {"recorded": 0, "duplicates": 1})

            code, refused = await told(search, router.address, SURFACE, "", "")
            assert (code, refused["code"]) == (1, grpc.StatusCode.INVALID_ARGUMENT.value[0])
            assert "user_id" in refused["details"]
            code, refused = await told(record, router.address, "u1", "", "click", "event-2")
            assert (code, refused["code"]) == (1, grpc.StatusCode.INVALID_ARGUMENT.value[0])
            assert "item_id" in refused["details"]

    asyncio.run(main())


def test_shows_its_token_over_tls_and_reads_the_contract_from_its_files(
    programs: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        rules = AccessRules(callers=(Caller(name="web", token_sha256=digest("word"), roles=(Role.EVENTS,)),))
        files = certified.files(Party.ROUTER)
        shown = {"protos": str(PROTOS), "tls": str(certified.folder())}
        async with running(placed([LIVE], {}, {}), tmp_path, access=lambda: rules, tls=files) as router:
            record = [router.address, "u1", "item-001", "click", "event-1"]
            search = [router.address, SURFACE, "mug", ""]
            code, refused = await told(programs / "record.mjs", *record, **shown)
            assert (code, refused["code"]) == (1, grpc.StatusCode.UNAUTHENTICATED.value[0])
            recorded = await told(programs / "record.mjs", *record, **shown, token="word")
            assert recorded == (0, {"recorded": 1, "duplicates": 0})
            code, refused = await told(programs / "search.mjs", *search, **shown, token="word")
            assert (code, refused["code"]) == (1, grpc.StatusCode.PERMISSION_DENIED.value[0])

    asyncio.run(main())
