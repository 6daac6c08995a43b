"""The placement in Consul's key-value store: one key, replaced by Consul's own compare-and-set."""

import asyncio
import gzip
import logging
import random
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.consul_client import ConsulClient
from services.consul_query import Answer, Silence, follow
from services.placement_json import placement_from_json, placement_to_json
from services.placement_store import Committed, Conflict, check_rises
from shards.errors import CorruptRecord, FieldViolation, InvalidInput
from shards.placement import Placement

log = logging.getLogger(__name__)

VALUE_LIMIT_BYTES = 512 * 1024
"""Consul's `kv_max_value_size`, unless its operator raised it."""

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class _Held:
    """What the key holds, and the index that a compare-and-set must name (0 where there is no key)."""

    placement: Placement
    modify_index: int


class ConsulPlacementStore:
    """Keeps the placement as JSON below `<prefix>/placement`, compressed only where it would not fit.

    Everything raises `Unavailable` while Consul does not answer. A commit that ends so may still have
    happened: the next one then is a `Conflict` with the placement it was to commit. What cannot be read
    is `CorruptRecord` and never overwritten.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client
        self._key = client.settings.key("placement")

    async def read(self) -> Placement:
        """Return the placement."""
        return (await self._read()).placement

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        """Replace the placement if its generation is the expected one.

        Raises `InvalidInput` for a placement that is too big for Consul, even compressed.
        """
        check_rises(expected_generation, placement)
        value = await asyncio.to_thread(encode_value, placement)
        while True:
            held = await self._read()
            if held.placement.generation != expected_generation:
                return Conflict(held.placement)
            if await self._replace(value, held.modify_index):
                return Committed(placement)

    async def watch(self, known_generation: int, rng: random.Random) -> AsyncGenerator[Placement, None]:
        """Yield the placement, if the watcher does not know it, and every one that follows; without end.

        A slow watcher gets the newest only. What is older than known is not told: generations only rise,
        also past a Consul that lost its history. While Consul is gone there is no news.
        """
        async with aclosing(follow(self._client, self._query, rng=rng)) as answers:
            async for heard in answers:
                placement = await self._heard(heard)
                if placement is not None and placement.generation > known_generation:
                    known_generation = placement.generation
                    yield placement

    async def _heard(self, heard: Answer | Silence) -> Placement | None:
        if isinstance(heard, Silence):
            return None
        try:
            return (await self._held(heard.value)).placement
        except CorruptRecord as error:
            log.error("ignored: %s", error)
            return None

    async def _query(self, api: Any, index: int, wait: str) -> tuple[str, Any]:
        answer: tuple[str, Any] = await api.kv.get(
            self._key, index=index, wait=wait, consistency="consistent"
        )
        return answer

    async def _read(self) -> _Held:
        _, item = await self._client.ask(lambda api: api.kv.get(self._key, consistency="consistent"))
        return await self._held(item)

    async def _replace(self, value: bytes, modify_index: int) -> bool:
        replaced: bool = await self._client.ask(lambda api: api.kv.put(self._key, value, cas=modify_index))
        return replaced

    async def _held(self, item: dict[str, Any] | None) -> _Held:
        if item is None:
            return _Held(Placement(), 0)
        value = item["Value"] or b""
        return _Held(await asyncio.to_thread(decode_value, value, self._key), item["ModifyIndex"])


def encode_value(placement: Placement) -> bytes:
    """Return the JSON, or its gzip where Consul would not take the JSON; raises `InvalidInput`."""
    plain = placement_to_json(placement)
    if len(plain) <= VALUE_LIMIT_BYTES:
        return plain
    packed = gzip.compress(plain, mtime=0)
    if len(packed) > VALUE_LIMIT_BYTES:
        size = f"{len(plain)} bytes, {len(packed)} compressed"
        raise InvalidInput(
            FieldViolation("placement", f"is too big for Consul: {size}; a value has {VALUE_LIMIT_BYTES}")
        )
    return packed


def decode_value(value: bytes, key: str) -> Placement:
    """Return the placement of either form; raises `CorruptRecord`, which names the key."""
    if value.startswith(_GZIP_MAGIC):
        try:
            value = gzip.decompress(value)
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptRecord("Consul", key, str(error)) from error
    return placement_from_json(value, store="Consul", key=key)
