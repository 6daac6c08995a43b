"""A real Redis: found, or fetched from Debian, and started, killed, hung and filled as tests need it."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from services.redis_settings import RedisSettings
from tests.services.debian_packages import Packaged, free_ports
from tests.services.stopped_process import stop

REDIS = Packaged(
    name="redis-server",
    variable="HEADRACE_REDIS",
    # The program is in redis-tools; the rest is what a bare Debian lacks of what it links to.
    packages=(
        *("redis-server", "redis-tools", "libjemalloc2", "liblua5.1-0", "liblzf1"),
        *("lua-bitop", "lua-cjson", "libatomic1"),
    ),
)
_START_S = 20.0


class RedisServer:
    """A Redis of its own on loopback, whose log of writes is on disk before it answers.

    Nothing else of it is saved; `options` go on its command line. With `certificates`, the folder
    of those that Consul has made, it speaks TLS only.
    """

    def __init__(self, folder: Path, *options: str, certificates: Path | None = None) -> None:
        self._program = REDIS.program()
        self._folder = folder
        self._options = options
        self._certificates = certificates
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, **changes: object) -> RedisSettings:
        """Return settings for it; it rests as briefly as tests like it."""
        fields: dict[str, object] = {"port": self.port, "rest_s": 0.05} | changes
        return RedisSettings(**fields)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when it answers."""
        command = (
            *(str(self._program), "--bind", "127.0.0.1", *self._listening()),
            *("--dir", str(self._folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            *self._options,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **REDIS.libraries(self._program)}
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline_s = time.monotonic() + _START_S
        while not self._answers():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                raise AssertionError(f"no Redis: {(self._folder / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _listening(self) -> tuple[str, ...]:
        if self._certificates is None:
            return ("--port", str(self.port))
        return (
            *("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"),
            *("--tls-ca-cert-file", str(self._certificates / "consul-agent-ca.pem")),
            *("--tls-cert-file", str(self._certificates / "dc1-server-consul-0.pem")),
            *("--tls-key-file", str(self._certificates / "dc1-server-consul-0-key.pem")),
        )

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Stop it from doing anything, without ending it: SIGSTOP."""
        assert self._process is not None
        stop(self._process.pid)

    def wake(self) -> None:
        """Let it go on: SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def tell(self, *words: str) -> bytes:
        """Send one command as an operator does, and return the first line of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall(b"*%d\r\n" % len(words))
            for word in words:
                line.sendall(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            with line.makefile("rb") as answer:
                return answer.readline().strip()

    def _answers(self) -> bool:
        """Return whether it takes commands; one with a password or TLS at least listens."""
        if "--requirepass" in self._options or self._certificates:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            return self.tell("PING") == b"+PONG"
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
