"""What runs the shards: Ray actors in a cluster. Control only; requests go straight to the shards."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

import ray
from ray.exceptions import RayError

from services.shard_actor import NAMESPACE, start_shard_actor
from services.shard_config import ShardConfig
from shards.errors import Unavailable

log = logging.getLogger(__name__)


class ShardHost(Protocol):
    """Starts shards, finds them and replaces those that hang. All three may be repeated."""

    async def start(self, shard_id: str) -> None:
        """See that the shard runs; returns before it serves. One that runs already stays as it is."""

    async def address(self, shard_id: str) -> str:
        """Return HOST:PORT of the shard; raises `Unavailable` while it does not run."""

    async def restart(self, shard_id: str) -> None:
        """End the shard's process, however it is, and start another."""


class RayShardHost:
    """Runs each shard as a detached Ray actor, which Ray restarts when its process dies.

    Ray must be initialised. A second host, of a controller started anew, finds the same actors.
    """

    def __init__(
        self, configs: Mapping[str, ShardConfig], *, num_gpus: float = 0.0, answer_timeout_s: float = 2.0
    ) -> None:
        self._configs = configs
        self._num_gpus = num_gpus
        self._answer_timeout_s = answer_timeout_s

    async def start(self, shard_id: str) -> None:
        """Start the actor unless it lives."""
        await asyncio.to_thread(start_shard_actor, self._configs[shard_id], num_gpus=self._num_gpus)

    async def address(self, shard_id: str) -> str:
        """Ask the actor where it serves."""
        try:
            return await asyncio.to_thread(self._ask_address, shard_id)
        except (RayError, ValueError) as error:
            raise Unavailable(f"{shard_id} does not run") from error

    async def restart(self, shard_id: str) -> None:
        """Kill the actor's process and start another."""
        try:
            await asyncio.to_thread(self._kill, shard_id)
        except (RayError, ValueError) as error:
            log.warning("%s cannot be killed: %s", shard_id, error)
        await self.start(shard_id)

    def _ask_address(self, shard_id: str) -> str:
        actor = ray.get_actor(shard_id, namespace=NAMESPACE)
        return str(ray.get(actor.address.remote(), timeout=self._answer_timeout_s))

    @staticmethod
    def _kill(shard_id: str) -> None:
        ray.kill(ray.get_actor(shard_id, namespace=NAMESPACE), no_restart=False)
