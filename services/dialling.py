"""How a process opens channels: what it shows, and whom it expects at the other end."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio

from services.tls import Certificates, Party, open_channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialling:
    """Certificates, where there are any, the name of who is called, and the metadata of every call."""

    certificates: Certificates | None = None
    expected: str = Party.SHARD.value
    metadata: tuple[tuple[str, str], ...] = ()

    def channel(self, address: str, options: Sequence[tuple[str, int | str]]) -> grpc.aio.Channel:
        """Return a channel to HOST:PORT."""
        return open_channel(address, self.certificates, self.expected, options=options)


PLAINLY = Dialling()
"""Nothing is encrypted, and nothing shown."""
