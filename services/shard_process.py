"""The processes behind a shard: one that is warm, and the one it forks, which serves.

Libraries take seconds to import and milliseconds to inherit. So the warm process imports them, serves
nothing, and forks the process that serves: at the beginning, and again at once when that one dies or hangs.

    Ray actor ── warm process ── serving process         each dies with the one before it, by SIGKILL

Started as `python -m services.shard_process PARENT_PID CONFIG`; for each life it writes a line of JSON with
the address and the process to standard output. SIGTERM ends it gracefully. The warm process has one thread
only, as a fork takes no other along.
"""

import asyncio
import contextlib
import ctypes
import errno
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Never

from services.access import AccessRules
from services.grpc_waiting import wait_on_the_asking_thread
from services.priority import session_steps_back, step_back
from services.process_log import log_to
from services.shard_config import ShardConfig
from services.shard_record import read_record
from services.telemetry_settings import Telemetry
from shards.errors import CorruptRecord
from shards.garbage import set_aside_what_stays
from shards.json_codec import from_json, to_json
from shards.live_quality import QualitySettings

log = logging.getLogger(__name__)

_SERVER = ("services.shard_server",)
_WARM = (
    "torch.export.pt2_archive._package",
    "torch._inductor.sizevars",
    "networkx",
    "pyarrow.dataset",
    "tantivy",
    "tokenizers",
)
"""What bundles need besides; importing all this starts no thread and computes nothing."""

_NICE = 5
"""Imports take a third of what who serves takes of a processor that both want."""

_BEAT_S = 0.25
_LOOK_S = 0.5
_SILENT_LOOKS = 6
"""So many looks in a row without a sign of life, and it hangs."""

_PORT_TIMEOUT_S = 3.0
_PORT_LOOK_EVERY_S = 0.02
_SOON_S = 5.0
"""Who dies sooner than this is not forked again at once, but after a pause."""
_LONGEST_PAUSE_S = 5.0
_PR_SET_PDEATHSIG = 1


def command(config: ShardConfig) -> list[str]:
    """Return the command line of a shard's warm process, which dies with the thread that starts it."""
    told = {"state_dir": str(config.state_dir), "access": config.access and to_json(config.access)}
    argument = json.dumps(asdict(config) | told)
    return [sys.executable, "-m", "services.shard_process", str(os.getpid()), argument]


def config_of(argument: str) -> ShardConfig:
    """Return the config in the last argument of such a command line."""
    fields = json.loads(argument)
    read = {
        "state_dir": Path(fields["state_dir"]),
        "access": from_json(AccessRules, fields["access"]) if fields["access"] else None,
        "trusted_keys": tuple(fields["trusted_keys"]),
        "telemetry": Telemetry.of(fields["telemetry"]),
        "quality": QualitySettings(**fields["quality"]),
    }
    return ShardConfig(**fields | read)


@dataclass(slots=True)
class Vitals:
    """Whether a process lives: it beats, or at least computes. Starved of a processor it does a little."""

    ticks: int = 0
    silent: int = 0

    def hangs(self, beaten: bool, ticks: int) -> bool:
        """Take note of a look and return whether there was no sign of life for too long."""
        self.silent = 0 if beaten or ticks != self.ticks else self.silent + 1
        self.ticks = ticks
        return self.silent >= _SILENT_LOOKS


def main() -> None:
    """Import, then fork serving processes until told to stop, or until the first of them cannot serve."""
    parent_pid, argument = sys.argv[1:]
    wait_on_the_asking_thread()
    _die_with(int(parent_pid))
    config = config_of(argument)
    log_to(None, process=config.shard_id, as_json=config.telemetry.logs.as_json)
    _import_aside(_SERVER)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    ends = 0
    while True:
        born_s = time.monotonic()
        pid, signs = _fork(config)
        # The first life need not wait for what makes the others quick.
        _import_aside(_WARM)
        served = _watch(pid, signs, told)
        if told:
            return
        if not served and not ends:
            sys.exit(f"shard {config.shard_id} does not serve")
        ends = 1 if time.monotonic() - born_s > _SOON_S else ends + 1
        if ends > 1:
            time.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2 ** min(ends, 10)))


def _import_aside(modules: Sequence[str]) -> None:
    """Import at a lower priority than whatever serves on this host, in a thread that ends before any fork.

    Linux has a priority for each thread, and lets nobody raise one again that was lowered.
    """
    with ThreadPoolExecutor(max_workers=1, initializer=step_back, initargs=(_NICE,)) as thread:
        for module in modules:
            thread.submit(importlib.import_module, module).result()
    # What is here stays in every life, and pages that no collection touches stay shared.
    set_aside_what_stays()


def _fork(config: ShardConfig) -> tuple[int, int]:
    """Return the serving process and the pipe on which it gives signs of life."""
    warm_pid = os.getpid()
    signs, own_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(signs)
        _serve_and_exit(config, warm_pid, own_end)
    os.close(own_end)
    return pid, signs


def _watch(pid: int, signs: int, told: list[int]) -> bool:
    """Return when the serving process has ended, and whether it ever served.

    One that hangs is killed, and told to stop when this process is.
    """
    vitals, asked, served = Vitals(), False, False
    with os.fdopen(signs, "rb", buffering=0) as pipe:
        while True:
            if told and not asked:
                asked = True
                os.kill(pid, signal.SIGTERM)
            readable, _, _ = select.select([pipe], [], [], _LOOK_S)
            sign = pipe.read(4096) if readable else b""
            if readable and not sign:
                break
            if sign.strip():
                served = True
                os.write(sys.stdout.fileno(), sign)
            if vitals.hangs(bool(sign), cpu_ticks(pid)):
                log.warning("process %d hangs and is killed", pid)
                os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    log.warning("process %d ended: %d", pid, os.waitstatus_to_exitcode(status))
    return served


def cpu_ticks(pid: int) -> int:
    """Return the processor time that a process has used, in ticks; 0 when there is none."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text()
    except OSError:
        return 0
    user, system = stat.rpartition(") ")[2].split()[11:13]
    return int(user) + int(system)


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, also while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def _serve_and_exit(config: ShardConfig, warm_pid: int, signs: int) -> Never:
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with(warm_pid)
        session_steps_back(config.niceness)
        asyncio.run(_serve(config, signs))
        status = 0
    except Exception:
        log.exception("shard %s ends", config.shard_id)
    finally:
        logging.shutdown()
        os._exit(status)


async def _serve(config: ShardConfig, signs: int) -> None:
    from services.shard_server import ShardServer

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await _former_port_free(config)
    async with ShardServer(config) as server:
        life = json.dumps({"address": server.address, "pid": os.getpid()})
        os.write(signs, f"{life}\n".encode())
        while not stop.is_set():
            os.write(signs, b"\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await stop.wait()


async def _former_port_free(config: ShardConfig) -> None:
    """Wait a moment for the port of the life before: its process may only just be ending."""
    with contextlib.suppress(CorruptRecord, TimeoutError):
        port = config.port or read_record(config.record_path).port
        async with asyncio.timeout(_PORT_TIMEOUT_S):
            while port and _taken(config.host, port):  # noqa: ASYNC110
                await asyncio.sleep(_PORT_LOOK_EVERY_S)


def _taken(host: str, port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


if __name__ == "__main__":
    main()
