"""A shard as a Ray actor: Ray starts, places and restarts it, and carries none of its requests."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util import get_node_ip_address

from services.shard_config import ShardConfig
from services.shard_record import read_record
from services.shard_resources import ShardResources
from shards.errors import CorruptRecord

log = logging.getLogger(__name__)

NAMESPACE = "headrace"

_START_TIMEOUT_S = 60.0
_PORT_TIMEOUT_S = 3.0
_PORT_LOOK_EVERY_S = 0.02
_ONE_CPU = ShardResources()
_EVERY_INTERFACE = frozenset({"0.0.0.0", "[::]"})


class ShardActor:
    """Hosts a `ShardServer` in a thread with an event loop of its own, away from Ray's.

    When its process dies, Ray runs the constructor again, and the server takes up its port and its
    models from its record: neither controller nor caller has to do anything.
    """

    def __init__(self, config: ShardConfig) -> None:
        self._started: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(_here(config),), name="shard", daemon=True)
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

        await _former_port_free(config)
        async with ShardServer(config) as server:
            self._started.set_result(server.address)
            await self._stop.wait()


def start_shard_actor(config: ShardConfig, resources: ShardResources = _ONE_CPU) -> "ActorHandle[Any]":
    """Return the shard's actor, started if there is none of its id; it outlives whoever starts it.

    Ray spreads shards over the nodes that have the resources, and restarts the actor without limit, on
    another node when its own is gone. Ray must be initialised. End it with `stop` and
    `ray.kill(handle, no_restart=True)`.
    """
    # Ray's stubs know decorated classes only.
    remote: Any = ray.remote(ShardActor)
    handle: ActorHandle[Any] = remote.options(
        name=config.shard_id,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
        label_selector=dict(resources.labels) or None,
        # No placement group: its bundles are fixed when it is made, and shards come and go.
        scheduling_strategy="SPREAD",
    ).remote(config)
    return handle


def _here(config: ShardConfig) -> ShardConfig:
    """Return the config of a shard on this node, where Ray has put it."""
    advertised = config.advertise_host
    if not advertised and config.host in _EVERY_INTERFACE:
        advertised = str(get_node_ip_address())  # type: ignore[no-untyped-call]
    return replace(config, node=ray.get_runtime_context().get_node_id(), advertise_host=advertised)


async def _former_port_free(config: ShardConfig) -> None:
    """Wait a moment for the port of the life before: its process may only just be ending."""
    with contextlib.suppress(CorruptRecord, TimeoutError):
        port = config.port or read_record(config.record_path).port
        async with asyncio.timeout(_PORT_TIMEOUT_S):
            while port and _taken(config.host, port):  # noqa: ASYNC110
                await asyncio.sleep(_PORT_LOOK_EVERY_S)


def _taken(host: str, port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False
