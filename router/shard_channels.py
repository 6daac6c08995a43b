"""The router's connections: one gRPC channel to each shard, opened when first needed."""

import asyncio
from collections.abc import Iterable, Sequence

import grpc.aio

from services.dialling import PLAINLY, Dialling

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
"""A unary method that takes and returns the bytes of its messages."""

RawStream = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
"""A method that takes the bytes of a message and returns those of many."""

_CERTIFICATES_EVERY_S = 5.0


class ShardChannels:
    """Open channels by address. What leaves the placement is closed, and so is all at the end.

    Calls in flight to a shard that left may go on for `closing_s`, which no deadline should exceed.
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int | str]],
        *,
        closing_s: float,
        shown: Dialling = PLAINLY,
    ) -> None:
        self._options = list(options)
        self._closing_s = closing_s
        self._shown = shown
        self.metadata = shown.metadata
        """What every call carries."""
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[tuple[str, str], RawCall] = {}

    def method(self, address: str, path: str) -> RawCall:
        """Return the method `/package.Service/Method` of the shard at this address."""
        call = self._calls.get((address, path))
        if call is None:
            call = self._calls[address, path] = self._channel(address).unary_unary(path)
        return call

    def stream(self, address: str, path: str) -> RawStream:
        """Return the method that answers one message with a stream of them."""
        return self._channel(address).unary_stream(path)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = self._shown.channel(address, self._options)
        return self._channels[address]

    async def retain(self, addresses: Iterable[str]) -> None:
        """Close the channels to all other addresses, once their calls in flight have had time to end."""
        gone = self._channels.keys() - set(addresses)
        self._calls = {key: call for key, call in self._calls.items() if key[0] not in gone}
        for channel in [self._channels.pop(address) for address in gone]:
            await channel.close(self._closing_s)

    async def renew(self) -> None:
        """Open new channels from now on; old ones close once their calls in flight have had time to end."""
        old, self._channels = self._channels, {}
        self._calls.clear()
        for channel in old.values():
            await channel.close(self._closing_s)

    async def follow_certificates(self, *, every_s: float = _CERTIFICATES_EVERY_S) -> None:
        """Renew the channels whenever the certificate that they show is replaced, until cancelled."""
        certificates = self._shown.certificates
        if certificates is None:
            return
        shown = certificates.current()
        while True:
            await asyncio.sleep(every_s)
            if certificates.current() is not shown:
                shown = certificates.current()
                await self.renew()

    async def close(self) -> None:
        """Close every channel, and cancel what is in flight."""
        self._calls.clear()
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()
