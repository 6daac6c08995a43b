"""The console on a port."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deploy.console.app import console
from deploy.console.console_settings import ConsoleSettings
from deploy.ports import is_loopback
from shards.errors import FieldViolation, InvalidInput, Unavailable

log = logging.getLogger(__name__)

_HEADER_BYTES = 16 * 2**10
_CONNECTIONS = 200
_GRACE_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a console listens; with a certificate and its key it speaks TLS."""

    host: str = "127.0.0.1"
    port: int = 0
    cert_path: Path | None = None
    key_path: Path | None = None
    insecure: bool = False
    """Whether it may listen beyond this machine without TLS, so that tokens travel in the clear."""
    patience_s: float = 10.0
    """For a connection to ask something."""

    def __post_init__(self) -> None:
        if (self.cert_path is None) != (self.key_path is None):
            raise InvalidInput(FieldViolation("tls", "a certificate and its key go together"))
        if not (is_loopback(self.host) or self.cert_path or self.insecure):
            problem = f"{self.host} is not this machine alone: give a certificate and its key, or --insecure"
            raise InvalidInput(FieldViolation("host", problem))


class _Impatient(H11Protocol):
    """Hangs up on who takes longer than `patience_s` to ask something, from the first byte or before."""

    patience_s = 10.0
    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take what came; wait on where it is no whole request."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_request()
        elif self._silence:
            self._silence.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._silence:
            self._silence.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        # A byte now and then does not set the clock back.
        if self._silence is None or self._silence.cancelled():
            self._silence = self.loop.call_later(self.patience_s, self.transport.close)


def _impatient(seconds: float) -> type[_Impatient]:
    class Impatient(_Impatient):
        patience_s = seconds

    return Impatient


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the event loop."""
        yield


async def serve_console(settings: ConsoleSettings, door: Door, announce: Callable[[str], None]) -> None:
    """Serve until cancelled; announces HOST:PORT. Raises `Unavailable` when the address is taken."""
    with _listening(door) as listener:
        port = listener.getsockname()[1]
        app = console(replace(settings, secure=door.cert_path is not None))
        server = _Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                ws="none",
                http=_impatient(door.patience_s),
                limit_concurrency=_CONNECTIONS,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                timeout_graceful_shutdown=_GRACE_S,
                ssl_certfile=door.cert_path,
                ssl_keyfile=door.key_path,
            )
        )
        serving = asyncio.ensure_future(server.serve([listener]))
        announce(f"{door.host}:{port}")
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await asyncio.wait([serving])


@contextlib.contextmanager
def _listening(door: Door) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((door.host.strip("[]"), door.port))
            listener.listen(_CONNECTIONS)
        except OSError as error:
            raise Unavailable(f"cannot listen on {door.host}:{door.port}: {error.strerror}") from error
        yield listener
