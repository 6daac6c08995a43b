"""The routers that a Python client may ask: one at a time, and the next one where that does not answer."""

import random
from collections.abc import Sequence

import grpc
import grpc.aio

from router.client_retries import GONE
from router.shard_channels import ShardChannels

_MOVES_ON = GONE | {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Routers:
    """Addresses of equal routers; clients begin with different ones, and stay with one that answers."""

    def __init__(self, addresses: Sequence[str], channels: ShardChannels, rng: random.Random) -> None:
        if not addresses or not all(addresses):
            raise ValueError("the address of a router is empty")
        self._addresses = tuple(addresses)
        self._channels = channels
        self._current = rng.randrange(len(addresses))

    def __len__(self) -> int:
        return len(self._addresses)

    async def ask(
        self, path: str, payload: bytes, timeout_s: float, metadata: Sequence[tuple[str, str]]
    ) -> bytes:
        """Return the answer of one router; raises `AioRpcError`, after which another one may be asked."""
        asked = self._current
        method = self._channels.method(self._addresses[asked], path)
        try:
            return await method(payload, timeout=timeout_s, metadata=tuple(metadata))
        except grpc.aio.AioRpcError as error:
            # Of calls that fail together only the first moves on.
            if error.code() in _MOVES_ON and self._current == asked:
                self._current = (asked + 1) % len(self._addresses)
            raise
