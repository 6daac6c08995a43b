"""A shard as a Ray actor: Ray starts, places and restarts it, and carries none of its requests."""

import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util import get_node_ip_address

from services.shard_config import ShardConfig
from services.shard_process import command
from services.shard_resources import ShardResources
from shards.errors import Unavailable

log = logging.getLogger(__name__)

NAMESPACE = "headrace"

_START_TIMEOUT_S = 120.0
"""Ray does not start again what fails in its constructor; the controller does, later."""

_ONE_CPU = ShardResources()
_EVERY_INTERFACE = frozenset({"0.0.0.0", "[::]"})


class ShardActor:
    """Keeps a shard's warm process, which forks the one that serves: see `services.shard_process`.

    When the serving process dies or hangs another one is forked, and when the actor's own process dies, Ray
    runs the constructor again. Either way the shard takes up its port and its models from its record:
    neither controller nor caller has to do anything.
    """

    def __init__(self, config: ShardConfig) -> None:
        self._started: Future[None] = Future()
        self._address, self._pid = "", 0
        self._stopping = False
        # The process dies with the thread that starts it.
        self._thread = threading.Thread(target=self._keep, args=(_here(config),), name="shard", daemon=True)
        self._thread.start()
        self._started.result(_START_TIMEOUT_S)

    def address(self) -> str:
        """Return HOST:PORT of the shard."""
        return self._address

    def ping(self) -> int:
        """Return the id of the process that serves, as a sign of life."""
        return self._pid

    def stop(self) -> None:
        """Stop serving gracefully; the actor lives on until Ray ends it."""
        self._stopping = True
        self._process.terminate()
        self._thread.join()

    def _keep(self, config: ShardConfig) -> None:
        """Run the warm process and note where it serves; without it the actor must not look alive."""
        path = os.pathsep.join(filter(None, sys.path))
        with subprocess.Popen(
            command(config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        ) as self._process:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.strip():
                    life = json.loads(line)
                    self._address, self._pid = life["address"], life["pid"]
                    if not self._started.done():
                        self._started.set_result(None)
        if not self._started.done():
            self._started.set_exception(Unavailable(f"shard {config.shard_id} does not serve; see its log"))
        elif not self._stopping:
            log.error("the process of shard %s has ended", config.shard_id)
            os._exit(1)


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
