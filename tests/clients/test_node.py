"""A Node program without stubs finds the services by reflection and searches."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running
from tests.shards.bundles import SURFACE

SOURCES = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the program's packages beside a copy of it; skips where that is not possible."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for source in SOURCES.iterdir():
        shutil.copy(source, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install: {installed.stderr.strip()[-200:]}")
    return folder / "search.mjs"


async def answer(program: Path, models: Models, folder: Path, query: str, user: str) -> tuple[int, object]:
    async with (
        real_shards(models, folder, ["s1"]) as addresses,
        running(models.placed_on(addresses), folder) as router,
    ):
        node = await asyncio.create_subprocess_exec(
            "node", str(program), router.address, SURFACE, query, user, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await node.communicate()
        return node.returncode or 0, json.loads(output)


def test_finds_services_by_reflection_and_searches(program: Path, models: Models, tmp_path: Path) -> None:
    code, found = asyncio.run(answer(program, models, tmp_path, "red mug", "u1"))
    assert code == 0
    assert isinstance(found, dict)
    assert {"headrace.v1.SearchService", "headrace.v1.RetrievalService", "grpc.health.v1.Health"} <= set(
        found["services"]
    )
    assert len(found["items"]) == 5
    assert all(item["attributes"]["title"] for item in found["items"])
    assert found["coverage"]["complete"] is True


def test_bad_input_reaches_it_as_a_status(program: Path, models: Models, tmp_path: Path) -> None:
    code, found = asyncio.run(answer(program, models, tmp_path, "", ""))
    assert code == 1
    assert isinstance(found, dict)
    assert found["code"] == 3
    assert "user_id" in found["details"]
