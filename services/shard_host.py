"""What runs the shards: Ray actors in a cluster. Control only; requests go straight to the shards."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from services.shard_actor import NAMESPACE, start_shard_actor
from services.shard_config import ShardConfig
from services.shard_resources import ShardResources
from shards.errors import Unavailable

log = logging.getLogger(__name__)

ConfigOf = Callable[[str], ShardConfig]
"""Gives the config of any shard by its id, also of those that the cluster was not started with."""

_LOOK_EVERY_S = 0.02


class ShardHost(Protocol):
    """Starts shards, finds them, replaces those that hang and ends them. All of it may be repeated."""

    async def start(self, shard_id: str) -> None:
        """See that the shard runs; returns before it serves. One that runs already stays as it is."""

    async def address(self, shard_id: str) -> str:
        """Return HOST:PORT of the shard; raises `Unavailable` while it does not run."""

    async def restart(self, shard_id: str) -> None:
        """End the shard's process, however it is, and start another, with what shards get now."""

    async def stop(self, shard_id: str) -> None:
        """End the shard for good, gracefully where it can; returns when it runs no more."""

    async def scale(self, shard_ids: Sequence[str], gpu_fraction: float | None) -> None:
        """Ask for room for these shards; those started from now on get this share of a GPU.

        None is the share that the host was made with.
        """


class RayShardHost:
    """Runs each shard as a detached Ray actor, which Ray restarts when its process dies.

    Ray must be initialised. A second host, of a controller started anew, finds the same actors.
    """

    def __init__(
        self,
        config_of: ConfigOf,
        resources: ShardResources,
        *,
        answer_timeout_s: float = 2.0,
        end_timeout_s: float = 10.0,
    ) -> None:
        self._config_of = config_of
        self._configured = self._resources = resources
        self._answer_timeout_s = answer_timeout_s
        self._end_timeout_s = end_timeout_s

    async def start(self, shard_id: str) -> None:
        """Start the actor unless it lives."""
        await asyncio.to_thread(start_shard_actor, self._config_of(shard_id), self._resources)

    async def address(self, shard_id: str) -> str:
        """Ask the actor where it serves."""
        try:
            return await asyncio.to_thread(self._ask_address, shard_id)
        except (RayError, ValueError) as error:
            raise Unavailable(f"{shard_id} does not run") from error

    async def restart(self, shard_id: str) -> None:
        """Kill the actor and make it anew: Ray's own restart would keep the resources it had."""
        try:
            await asyncio.to_thread(self._kill, shard_id)
        except (RayError, Unavailable) as error:
            log.warning("%s cannot be killed: %s", shard_id, error)
        await self.start(shard_id)

    async def stop(self, shard_id: str) -> None:
        """Let the actor finish what it answers, then end it; raises `Unavailable` where Ray does not."""
        await asyncio.to_thread(self._stop_serving, shard_id)
        try:
            await asyncio.to_thread(self._kill, shard_id)
        except RayError as error:
            raise Unavailable(f"{shard_id} cannot be ended: {error}") from error

    async def scale(self, shard_ids: Sequence[str], gpu_fraction: float | None) -> None:
        """Ask the cluster's autoscaler for nodes, of which there may be none, and change the share."""
        fraction = self._configured.num_gpus if gpu_fraction is None else gpu_fraction
        self._resources = replace(self._resources, num_gpus=fraction)
        try:
            await asyncio.to_thread(_request_room, self._resources, len(shard_ids))
        except (RayError, RuntimeError) as error:
            # Ray still asks for nodes by itself, one by one, once shards wait for them.
            log.warning("Ray's autoscaler cannot be asked for room: %s", error)

    def _ask_address(self, shard_id: str) -> str:
        return str(ray.get(_actor(shard_id).address.remote(), timeout=self._answer_timeout_s))

    def _stop_serving(self, shard_id: str) -> None:
        grace_s = self._config_of(shard_id).grace_s
        # One that hangs, or runs no more, is ended all the same.
        with contextlib.suppress(RayError, ValueError):
            ray.get(_actor(shard_id).stop.remote(), timeout=grace_s + self._answer_timeout_s)

    def _kill(self, shard_id: str) -> None:
        """End the actor for good; returns when its name is free for another."""
        late_s = time.monotonic() + self._end_timeout_s
        while True:
            try:
                actor = _actor(shard_id)
            except ValueError:
                return
            ray.kill(actor, no_restart=True)
            if time.monotonic() > late_s:
                raise Unavailable(f"Ray does not end {shard_id}")
            time.sleep(_LOOK_EVERY_S)


def _actor(shard_id: str) -> "ActorHandle[Any]":
    """Return the shard's actor; raises ValueError when Ray has none of this name."""
    return ray.get_actor(shard_id, namespace=NAMESPACE)


def _request_room(resources: ShardResources, shards: int) -> None:
    """Have the autoscaler keep nodes for so many shards, used or not, until it is asked again."""
    bundle = resources.bundle()
    if not bundle:
        return
    selectors = [dict(resources.labels)] * shards
    request_resources(bundles=[bundle] * shards, bundle_label_selectors=selectors)
