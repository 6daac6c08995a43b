"""A shard as a Ray actor: Ray starts, places and restarts it, and carries none of its requests."""

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from services.shard_config import ShardConfig

log = logging.getLogger(__name__)

NAMESPACE = "headrace"

_START_TIMEOUT_S = 60.0


class ShardActor:
    """Hosts a `ShardServer` in a thread with an event loop of its own, away from Ray's.

    When its process dies, Ray runs the constructor again, and the server takes up its port and its
    models from its record: neither controller nor caller has to do anything.
    """

    def __init__(self, config: ShardConfig) -> None:
        self._started: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(config,), name="shard", daemon=True)
        self._thread.start()
        self._address = self._started.result(_START_TIMEOUT_S)

    def address(self) -> str:
        """Return HOST:PORT of the shard."""
        return self._address

    def ping(self) -> int:
        """Return the id of the process, as a sign of life."""
        return os.getpid()

    def stop(self) -> None:
        """Stop serving gracefully; the actor lives on until Ray ends it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, config: ShardConfig) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve(config))
            except Exception as error:
                if not self._started.done():
                    self._started.set_exception(error)
                    return
                # A shard that serves no more must not look alive; Ray starts it anew.
                log.exception("shard %s ends", config.shard_id)
                os._exit(1)

    async def _serve(self, config: ShardConfig) -> None:
        # Imported where the shard runs: whoever starts one needs neither torch nor faiss.
        from services.shard_server import ShardServer

        async with ShardServer(config) as server:
            self._started.set_result(server.address)
            await self._stop.wait()


def start_shard_actor(
    config: ShardConfig, *, num_cpus: float = 1.0, num_gpus: float = 0.0, node: str | None = None
) -> "ActorHandle[Any]":
    """Return the shard's actor, started if there is none of its id; it outlives whoever starts it.

    `node` is the id of a Ray node to run on. Ray restarts the actor without limit. Ray must be
    initialised. End it with `stop` and `ray.kill(handle, no_restart=True)`.
    """
    strategy = NodeAffinitySchedulingStrategy(node, soft=False) if node else "DEFAULT"
    # Ray's stubs know decorated classes only.
    remote: Any = ray.remote(ShardActor)
    handle: ActorHandle[Any] = remote.options(
        name=config.shard_id,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        scheduling_strategy=strategy,
    ).remote(config)
    return handle
