"""How to reach Consul, and where in it Headrace keeps its things."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulTls:
    """HTTPS to the agent, always verified: by `ca_path`, or by the host's own authorities without one.

    `cert_path` and `key_path` are this process's own certificate, where the agent asks for one.
    """

    ca_path: Path | None = None
    cert_path: Path | None = None
    key_path: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_path is None) != (self.key_path is None):
            raise ValueError("cert_path and key_path come together")

    def context(self) -> ssl.SSLContext:
        """Return the verifying context; raises OSError (ssl.SSLError is one) for files that do not serve."""
        context = ssl.create_default_context(cafile=self.ca_path)
        if self.cert_path is not None:
            context.load_cert_chain(self.cert_path, self.key_path)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulSettings:
    """One agent and the rights to use it.

    Every key is below `prefix`. An answer takes `timeout_s` at most, that of a blocking query up to
    `wait_s` (and a sixteenth, which Consul adds) more. Without a `token` the agent's own default decides.
    """

    address: str = "127.0.0.1:8500"
    """HOST:PORT; should be the agent of this host."""
    token: str = field(default="", repr=False)
    tls: ConsulTls | None = None
    datacenter: str = ""
    """Of the agent itself where empty."""
    prefix: str = "headrace"
    timeout_s: float = 5.0
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            raise ValueError(f"address {self.address!r} is not HOST:PORT")
        if not self.prefix or self.prefix != self.prefix.strip("/"):
            raise ValueError(f"prefix {self.prefix!r} must be a path without slashes around it")
        if self.timeout_s <= 0 or not 0 < self.wait_s <= 600:
            raise ValueError("timeout_s must be above 0 and wait_s within 0 to 600")

    def key(self, name: str) -> str:
        """Return the full name of one of our keys."""
        return f"{self.prefix}/{name}"
