"""A process of the cluster, seen from inside: started by the supervisor, ended by SIGTERM or with it.

It is started as `python -m MODULE PARENT_PID SETTINGS` and writes its log to standard error. On standard
output it writes one line of JSON: its address once it serves, or why it does not.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from deploy.failures import unwrapped
from deploy.processes import die_with_parent
from deploy.settings import ClusterSettings
from deploy.telemetry import telemetry
from services.grpc_waiting import wait_on_the_asking_thread
from services.malloc_arenas import share_arenas
from services.process_log import log_to
from services.tls import CertificateError
from shards.errors import HeadraceError
from shards.garbage import set_aside_what_stays

Serve = Callable[[ClusterSettings, Callable[[str], None]], Coroutine[None, None, None]]
"""Serves until cancelled; calls its second argument with its HOST:PORT when it does."""

_STOP_TIMEOUT_S = 8.0
"""Less than the supervisor waits before it kills."""

log = logging.getLogger(__name__)


def enter() -> ClusterSettings:
    """Tie this process to the supervisor, set up logging and return the settings."""
    parent_pid, argument = sys.argv[1:]
    wait_on_the_asking_thread()
    share_arenas()
    die_with_parent(int(parent_pid))
    settings = ClusterSettings.from_argument(argument)
    log_to(None, process=settings.process, as_json=telemetry(settings).logs.as_json)
    return settings


def announce(address: str) -> None:
    """Tell the supervisor that this process serves, and where; what it took to start is settled then."""
    set_aside_what_stays()
    _tell("address", address)


def run(settings: ClusterSettings, serve: Serve) -> None:
    """Serve until SIGTERM, then stop gracefully; on an expected error log one line and exit with 1."""
    try:
        with unwrapped():
            # Ctrl-C is the supervisor's business; it ends its children in order.
            told = until_told(serve(settings, announce), ends=(signal.SIGTERM,), ignored=(signal.SIGINT,))
            asyncio.run(told)
    except (HeadraceError, CertificateError) as error:
        log.error("%s", error)
        _tell("error", str(error))
        raise SystemExit(1) from None


def _tell(key: str, value: str) -> None:
    sys.stdout.write(json.dumps({key: value}) + "\n")
    sys.stdout.flush()


async def until_told(
    serving: Awaitable[None], *, ends: Sequence[signal.Signals], ignored: Sequence[signal.Signals] = ()
) -> None:
    """Run until the end, or until one of the signals, which cancels; then it may take some seconds."""
    task = asyncio.ensure_future(serving)
    loop = asyncio.get_running_loop()

    def told() -> None:
        task.cancel()
        # A thread that waits for a Ray that is gone must not keep this process.
        last_resort = threading.Timer(_STOP_TIMEOUT_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()

    for number in ends:
        loop.add_signal_handler(number, told)
    for number in ignored:
        loop.add_signal_handler(number, lambda: None)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
