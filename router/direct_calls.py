"""Calls of shards without a router between, for a Python client that follows the placement.

A call that a shard sends away goes to the shard that it names, once; all else that fails is a router's to
answer, which sees more: other replicas, what they cost now, and models in partitions.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.headrace.v1.cluster_service_pb2 import WatchPlacementRequest, WatchPlacementResponse
from router.shard_channels import ShardChannels
from router.shard_directory import Directory, directory_of
from router.wire import with_version
from services.backoff import Backoff

log = logging.getLogger(__name__)

WATCH = "/headrace.v1.ClusterService/WatchPlacement"

_SHARE = 0.5
"""Of a call's time, what a shard gets; the rest is a router's."""

_AVOID_S = 1.0
"""How long a shard is left alone that could not be reached or was late."""

_CLOSED_S = 60.0
"""How long after a refusal no shard, or no controller, is asked again."""

_FORBIDDEN = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_ABSENT = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
)
# No router does better: the request is wrong, or says when there will be room.
_FINAL = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED})


class DirectCalls:
    """Knows the shards of a cluster, as its controller tells, in its `async with` block; asks them."""

    def __init__(
        self,
        controller: str,
        control: ShardChannels,
        channels: ShardChannels,
        metadata: Sequence[tuple[str, str]],
        rng: random.Random,
    ) -> None:
        self._controller = controller
        self._control = control
        self._channels = channels
        self._metadata = tuple(metadata)
        self._rng = rng
        self._in_flight: Counter[str] = Counter()
        self._avoided_until: dict[str, float] = {}
        self._closed_until = 0.0
        self._known = asyncio.Event()
        self.directory = Directory()

    async def known(self) -> None:
        """Return when a placement is known."""
        await self._known.wait()

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        """Take what the controller says until cancelled; what was known last is used while it is away."""
        backoff, attempt = Backoff(base_s=0.05, cap_s=2.0), 0
        while True:
            try:
                await self._listen()
                attempt = 0
            except grpc.aio.AioRpcError as error:
                attempt += 1
                if error.code() in _FORBIDDEN:
                    log.warning("the placement cannot be watched: %s", error.details())
                    await asyncio.sleep(_CLOSED_S)
            await asyncio.sleep(backoff.delay_s(attempt, self._rng))

    async def _listen(self) -> None:
        stream = self._control.stream(self._controller, WATCH)(
            WatchPlacementRequest().SerializeToString(), metadata=self._metadata
        )
        try:
            async for payload in stream:
                placement = WatchPlacementResponse.FromString(payload).placement
                self.directory = directory_of(placement)
                self._known.set()
                await self._channels.retain(self.directory.endpoints.values())
        finally:
            stream.cancel()

    async def ask(self, path: str, model: tuple[str, str], payload: bytes, timeout_s: float) -> bytes | None:
        """Return a shard's answer, None where a router shall be asked.

        `model` is its name and version, empty for the live one. Raises `AioRpcError` for what a router
        could not better.
        """
        owners = self.directory.find(*model)
        if owners is None or time.monotonic() < self._closed_until:
            return None
        address = self._chosen(owners.addresses)
        if address is None:
            return None
        if not model[1]:
            payload = with_version(payload, owners.version)
        until_s = time.monotonic() + _SHARE * timeout_s
        try:
            return await self._ask(address, path, payload, until_s)
        except grpc.aio.AioRpcError as refusal:
            owner = self._owner_named_by(refusal)
            if owner is None or owner == address:
                self._give_up(address, refusal)
                return None
        try:
            return await self._ask(owner, path, payload, until_s)
        except grpc.aio.AioRpcError as refusal:
            self._give_up(owner, refusal)
            return None

    async def _ask(self, address: str, path: str, payload: bytes, until_s: float) -> bytes:
        method = self._channels.method(address, path)
        self._in_flight[address] += 1
        try:
            timeout_s = max(0.0, until_s - time.monotonic())
            return await method(payload, timeout=timeout_s, metadata=self._metadata)
        finally:
            self._in_flight[address] -= 1

    def _chosen(self, addresses: Sequence[str]) -> str | None:
        """Return the one of two random shards with fewer calls of ours in flight; none that just failed."""
        now = time.monotonic()
        able = [address for address in addresses if self._avoided_until.get(address, 0.0) <= now]
        if not able:
            return None
        return min(self._rng.sample(able, min(2, len(able))), key=self._in_flight.__getitem__)

    def _owner_named_by(self, refusal: grpc.aio.AioRpcError) -> str | None:
        """Return the address of the shard to which one that is no owner sends its callers."""
        if refusal.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            return None
        status, info = rpc_status.from_call(refusal), error_details_pb2.ErrorInfo()
        for detail in status.details if status else ():
            if detail.Unpack(info) and info.reason == "NOT_OWNER":
                return self.directory.endpoints.get(info.metadata["owner"])
        return None

    def _give_up(self, address: str, refusal: grpc.aio.AioRpcError) -> None:
        """Remember what a refusal says of the shard, or of all; raises it where it is final."""
        if refusal.code() in _FINAL:
            raise refusal
        if refusal.code() in _FORBIDDEN:
            log.warning("shards cannot be asked: %s", refusal.details())
            self._closed_until = time.monotonic() + _CLOSED_S
        if refusal.code() in _ABSENT:
            self._avoided_until[address] = time.monotonic() + _AVOID_S
