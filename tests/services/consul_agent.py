"""A real Consul agent: found, or fetched from Debian, and started, killed and restarted as tests need it."""

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from services.consul_settings import ConsulSettings, ConsulTls
from tests.services.debian_packages import Packaged, free_ports
from tests.services.stopped_process import stop

_CONSUL = Packaged(
    name="consul",
    variable="HEADRACE_CONSUL",
    packages=("consul",),
    # The last Debian release with Consul in it: 1.8.7.
    suite="bullseye",
)
_START_S = 20.0


def consul_program() -> Path:
    """Return the program; skips the test where there is none, but fails it in CI."""
    return _CONSUL.program()


class ConsulAgent:
    """An agent of its own on loopback. In memory without `data`: a restart then begins empty.

    With `tls` it speaks HTTPS only, and an operator gets in so; `hcl` says how the agent proves itself.
    """

    def __init__(
        self, folder: Path, *, hcl: str = "", data: Path | None = None, tls: ConsulTls | None = None
    ) -> None:
        self._program = consul_program()
        self._folder = folder
        self._hcl = hcl
        self._mode: Sequence[str] = (
            ("-server", "-bootstrap-expect=1", f"-data-dir={data}") if data else ("-dev",)
        )
        self._tls = tls
        self._ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    def settings(self, prefix: str, **changes: object) -> ConsulSettings:
        """Return settings with waits as short as tests like them."""
        fields: dict[str, object] = {"address": self.address, "prefix": prefix, "wait_s": 2.0} | changes
        return ConsulSettings(**fields)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start, and return when the agent leads itself and knows its node."""
        http, server, lan, wan = self._ports
        web = ("-http-port=-1", f"-https-port={http}") if self._tls else (f"-http-port={http}",)
        command = (
            *(str(self._program), "agent", *self._mode, "-bind=127.0.0.1", "-client=127.0.0.1", "-node=test"),
            *(*web, f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}"),
            *("-dns-port=-1", "-grpc-port=-1", "-log-level=warn"),
            f"-hcl=performance {{ raft_multiplier = 1 }} {self._hcl}",
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            with (self._folder / "consul.log").open("ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
            if self._comes_up(deadline_s):
                return
            self.kill()
        raise AssertionError(f"no agent: {(self._folder / 'consul.log').read_text()[-2000:]}")

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

    def _comes_up(self, deadline_s: float) -> bool:
        """Wait until it answers; False when it ended instead."""
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < deadline_s:
            if self._leads():
                return True
            time.sleep(0.05)
        return False

    def _leads(self) -> bool:
        if self._tls:
            return self._listens()
        try:
            leader = self.get("/v1/status/leader")
            return bool(leader) and ("acl" in self._hcl or bool(self.get("/v1/catalog/node/test")))
        except (OSError, ValueError):
            return False

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[0])) == 0

    def get(self, path: str) -> object:
        """Return the JSON of an answer."""
        return json.loads(self.request("GET", path))

    def request(self, method: str, path: str, data: bytes = b"", token: str = "") -> bytes:
        """Ask what only an operator asks; raises OSError for what is refused."""
        request = urllib.request.Request(
            f"{'https' if self._tls else 'http'}://{self.address}{path}",
            data=data,
            headers={"X-Consul-Token": token} if token else {},
            method=method,
        )
        context = self._tls.context() if self._tls else None
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            body: bytes = answer.read()
            return body

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def make_certificates(folder: Path) -> tuple[str, ConsulTls]:
    """Make an authority, and by it certificates for an agent and a client, with Consul's own tool.

    Returns the agent's configuration, which lets in only who has the second, and that one.
    """
    for command in (("ca",), ("cert", "-server"), ("cert", "-client")):
        subprocess.run(
            (consul_program(), "tls", command[0], "create", *command[1:]),
            cwd=folder,
            check=True,
            capture_output=True,
        )
    hcl = f"""
      verify_incoming_https = true
      ca_file = "{folder}/consul-agent-ca.pem"
      cert_file = "{folder}/dc1-server-consul-0.pem"
      key_file = "{folder}/dc1-server-consul-0-key.pem"
    """
    return hcl, ConsulTls(
        ca_path=folder / "consul-agent-ca.pem",
        cert_path=folder / "dc1-client-consul-0.pem",
        key_path=folder / "dc1-client-consul-0-key.pem",
    )


def make_tokens(agent: ConsulAgent, policies: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Make a token for each name, with its policies; the agent has ACLs and nobody has used it yet."""
    root = _bootstrapped(agent)

    def ask(path: str, document: object) -> str:
        answer = json.loads(agent.request("PUT", path, json.dumps(document).encode(), root))
        return str(answer.get("SecretID", ""))

    for file in {file for files in policies.values() for file in files}:
        ask("/v1/acl/policy", {"Name": file.stem, "Rules": file.read_text()})
    return {
        name: ask("/v1/acl/token", {"Policies": [{"Name": file.stem} for file in files]})
        for name, files in policies.items()
    }


def _bootstrapped(agent: ConsulAgent) -> str:
    """Return the first token; an agent takes a moment until its ACL is there."""
    deadline_s = time.monotonic() + 15
    while True:
        try:
            return str(json.loads(agent.request("PUT", "/v1/acl/bootstrap"))["SecretID"])
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
