"""One process of the cluster, seen from the supervisor: started, found, started again, stopped."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from deploy.settings import ClusterSettings, child_environment
from shards.errors import Unavailable

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 15.0
_STABLE_S = 20.0
"""A process that lived this long starts its back-off from the beginning."""
_LONGEST_PAUSE_S = 10.0
_FIRST_STARTS = 3
_LONGEST_LOG_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run: a module of `deploy` that follows `deploy.child`.

    `settings` is awaited before every start, so that a process can depend on another one's address.
    `before_start` runs then, while no other process of the cluster is being born.
    """

    name: str
    module: str
    log_path: Path
    settings: Callable[[], Awaitable[ClusterSettings]]
    before_start: Callable[[], None] = lambda: None


class KeptProcess:
    """Keeps one process running while `keep` does; `birth` is shared, so that starts never overlap."""

    def __init__(self, spec: ProcessSpec, birth: asyncio.Lock, on_change: Callable[[], None]) -> None:
        self._spec = spec
        self._birth = birth
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._serving = asyncio.Event()
        self._address = ""
        self._error = ""
        self.name = spec.name

    @property
    def pid(self) -> int | None:
        """Return the process id, None while it does not run."""
        return self._process.pid if self._process else None

    async def served(self) -> str:
        """Return the address, as soon as the process serves."""
        await self._serving.wait()
        return self._address

    def end(self) -> None:
        """Have the process end, and so start again."""
        if self._process:
            _signal(self._process, signal.SIGTERM)

    async def keep(self) -> Never:
        """Run the process, again whenever it ends; stops it when cancelled.

        Raises `Unavailable` with the reason when it does not serve in its first three starts.
        """
        ends, served = 0, False
        while True:
            born_s = time.monotonic()
            status = await self._live()
            served = served or self._serving.is_set()
            self._serving.clear()
            ends = 1 if time.monotonic() - born_s > _STABLE_S else ends + 1
            if not served and ends >= _FIRST_STARTS:
                raise Unavailable(f"{self.name} does not start: {self._last_words()}")
            pause_s = min(_LONGEST_PAUSE_S, 0.1 * 2 ** min(ends - 1, 10))
            log.warning("%s ended (%s) and starts again in %.1f s", self.name, status, pause_s)
            await asyncio.sleep(pause_s)

    async def _live(self) -> int:
        """Start the process and return its exit status; it never outlives this call."""
        settings = await self._spec.settings()
        try:
            async with self._birth:
                self._spec.before_start()
                self._process = process = await self._start(settings)
            self._on_change()
            announced = await _announced(process)
            self._error = announced.get("error", "")
            if address := announced.get("address", ""):
                self._address = address
                self._serving.set()
                log.info("%s serves at %s as process %d", self.name, address, process.pid)
                return await process.wait()
            log.error("%s did not get ready: %s", self.name, self._last_words())
            await self._stop()
            return await process.wait()
        finally:
            await self._stop()

    async def _start(self, settings: ClusterSettings) -> asyncio.subprocess.Process:
        if self._spec.log_path.exists() and self._spec.log_path.stat().st_size > _LONGEST_LOG_BYTES:
            self._spec.log_path.replace(self._spec.log_path.with_suffix(".old.log"))
        with self._spec.log_path.open("ab") as log_file:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._spec.module,
                str(os.getpid()),
                settings.to_argument(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
                env=child_environment(None if settings.joins_ray else settings.folders.ray_token_path),
                # Ctrl-C in the terminal reaches the supervisor only, which then stops all in order.
                start_new_session=True,
            )

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            log.error("%s does not stop and is killed", self.name)
            _signal(process, signal.SIGKILL)
            await process.wait()

    def _last_words(self) -> str:
        """Return why the process did not get ready, as it said itself or as its log ends."""
        if self._error:
            return self._error
        lines = self._spec.log_path.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it says nothing'} ({self._spec.log_path})"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal; unlike asyncio's own way this leaves the exit status to whoever waits for it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _announced(process: asyncio.subprocess.Process) -> dict[str, str]:
    """Return what the process announces, or nothing when it ends or takes too long."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await process.stdout.readline()
    except TimeoutError:
        line = b""
    announced: dict[str, str] = json.loads(line or b"{}")
    return announced
