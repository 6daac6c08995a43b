"""A real Prometheus, found or fetched from Debian, with our own configuration."""

import asyncio
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deploy.settings import PROJECT_ROOT
from tests.services.debian_packages import Packaged, free_ports

PROMETHEUS = Packaged(name="prometheus", variable="HEADRACE_PROMETHEUS", packages=("prometheus",))
CONFIGURATION = PROJECT_ROOT / "deploy" / "prometheus"
WORKSPACE = "/var/lib/headrace"
"""What stands in the configuration for the workspace."""

_START_S = 30.0


class PrometheusServer:
    """Answers queries at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data that the API answers with; AssertionError where it refuses."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        answer = await asyncio.to_thread(_read, url)
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, text: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        result: list[dict[str, Any]] = (await self.ask("query", query=text))["result"]
        return result


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Prometheus's own checker."""
    program = PROMETHEUS.program().with_name("promtool")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)


@asynccontextmanager
async def running_prometheus(folder: Path, workspace: Path) -> AsyncIterator[PrometheusServer]:
    """Run Prometheus over the notes of a workspace, scraping them many times a second."""
    program = PROMETHEUS.program()
    await asyncio.to_thread(_configure, folder, workspace)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    options = {
        "config.file": str(folder / "prometheus.yml"),
        "storage.tsdb.path": str(folder / "data"),
        "web.listen-address": address,
    }
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program), *(f"--{name}={value}" for name, value in options.items()), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(_START_S):
            while not await asyncio.to_thread(_ready, address):
                assert process.returncode is None, (folder / "prometheus.log").read_text()[-2000:]
                await asyncio.sleep(0.05)
        yield PrometheusServer(address)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _configure(folder: Path, workspace: Path) -> None:
    folder.mkdir()
    text = (CONFIGURATION / "prometheus.yml").read_text()
    text = text.replace(WORKSPACE, str(workspace)).replace("15s", "200ms")
    (folder / "prometheus.yml").write_text(text)
    (folder / "alerts.yml").write_text((CONFIGURATION / "alerts.yml").read_text())


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def _read(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
