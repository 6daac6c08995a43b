"""Every command of docs/own-data.md, run in its order on real films, in a folder as a reader has it."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deploy.settings import PROJECT_ROOT
from router.client import HeadraceClient
from tests.docs.documents import Block, blocks
from tests.training.movielens_slice import real_slice

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

USERS = 150
QUICK = """
two_tower_queries = 3000
ranking_queries = 400
two_tower.fit.epochs = 1
"""
"""What lets a test train in seconds what a reader trains in minutes."""


@dataclass
class Reader:
    """Follows the document: runs commands in a folder, and keeps `headrace up` running."""

    folder: Path
    up: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    def run(self, line: str) -> str:
        """Run a command as `headrace` runs it; returns its standard output."""
        program, *arguments = shlex.split(line)
        assert program == "headrace", line
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str) -> str:
        """Start `headrace up` and return the router's address."""
        self.up = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *shlex.split(line)[1:]],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.up.stdout is not None
        for output in self.up.stdout:
            self.said.append(output)
            if ready := re.match(r"READY router=(\S+) ", output):
                return ready[1]
        raise AssertionError("".join(self.said))

    def stopped(self) -> bool:
        """Return whether `headrace up` has ended by itself; its output is read to the end."""
        assert self.up is not None
        self.up.communicate(timeout=60)
        return self.up.returncode == 0

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "COLUMNS": "120"}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    following = Reader(tmp_path)
    yield following
    if following.up and following.up.poll() is None:
        following.up.send_signal(signal.SIGINT)
        following.up.communicate(timeout=60)
    if following.up and following.up.stdout:
        following.up.stdout.close()


def write_tables(folder: Path, *, lacking: int = 0) -> None:
    """Write real films and what users did with them, but for their newest events."""
    films = real_slice(USERS)
    events = films.events.sort_by("timestamp").drop_columns(["event_id"])
    pq.write_table(films.items, folder / "items.parquet")
    pq.write_table(events.slice(0, len(events) - lacking), folder / "events.parquet")


def document() -> list[Block]:
    return [block for block in blocks("bash") if block.name == "docs/own-data.md"]


def settle(project: Path) -> None:
    """Let the cluster take any ports, and train in seconds."""
    path = project / "headrace.toml"
    text = re.sub(r"_port = \d+", "_port = 0", path.read_text())
    path.write_text(text.replace("[recipe.set]\n", f"[recipe.set]{QUICK}"))


async def found(router: str, query: str) -> list[str]:
    async with HeadraceClient(router, timeout_s=30.0) as client:
        result = await client.search("my-shop", query, user_id="5", page_size=5)
        assert result.complete
        return [item.attributes["title"] for item in result.items]


def test_the_document_holds_from_two_files_to_the_next_start(reader: Reader) -> None:
    write_tables(reader.folder, lacking=500)
    project = reader.folder / "my-shop"
    for line in [line for block in document() for line in block.lines()]:
        if line == "headrace init my-shop":
            write_tables(reader.folder)
        if line.startswith("headrace up"):
            titles = asyncio.run(found(reader.start(line), "star wars"))
            assert any("Star Wars" in title for title in titles)
        else:
            reader.run(line)
        if line.startswith("headrace init") and "--items" in line:
            settle(project)
    assert reader.stopped()
    for said in ("Training my-shop", "popular", "lexical (BM25)"):
        assert said in "".join(reader.said)
    toml = project / "headrace.toml"
    toml.write_text(toml.read_text().replace("target_rate = 0.7", "target_rate = 0.5"))
    reader.said.clear()
    reader.start("headrace up --project my-shop")
    assert "Training" not in "".join(reader.said)
    assert "gate.target_rate was 0.7 and is 0.5" in "".join(reader.said)
