"""A Ray on this machine, of one node or several; a node can be killed, with all that runs on it."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from services.shard_actor import NAMESPACE

_AS_IN_THE_IMAGE = {"RAY_worker_niceness": "0", "RAY_health_check_period_ms": "1000"}


class RayNodes:
    """The test is a driver on the head. Unless told, that has no CPU: shards that take one run elsewhere."""

    def __init__(self, **head: object) -> None:
        self._starter = subprocess.Popen(
            [sys.executable, "-m", "tests.services.ray_starter", json.dumps({"num_cpus": 0} | head)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _AS_IN_THE_IMAGE,
            text=True,
        )
        try:
            self.address = self._answer()
            ray.init(
                address=self.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR
            )
        except BaseException:
            self.close()
            raise

    def add(self, count: int, *, cpus: int) -> None:
        """Add nodes."""
        for _ in range(count):
            self._ask({"num_cpus": cpus})

    def alive(self) -> int:
        """Return how many nodes there are."""
        return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]

    def kill(self, node_id: str) -> None:
        """Kill a node at once, as if its machine had lost its power."""
        self._ask({"kill": node_id})

    def node_of(self, shard_id: str) -> str:
        """Return the id of the node on which a shard runs, empty while it runs on none."""
        for actor in ray._private.state.actors().values():
            if actor["Name"] == shard_id and actor["State"] == "ALIVE":
                return str(actor["Address"]["NodeID"])
        return ""

    def close(self) -> None:
        """End all nodes."""
        ray.shutdown()
        self._starter.communicate()

    def _ask(self, settings: dict[str, object]) -> None:
        assert self._starter.stdin is not None
        self._starter.stdin.write(f"{json.dumps(settings)}\n")
        self._starter.stdin.flush()
        assert self._answer() == self.address

    def _answer(self) -> str:
        assert self._starter.stdout is not None
        line = self._starter.stdout.readline().strip()
        assert line, "the nodes have ended"
        return line


@contextmanager
def ray_nodes(**head: object) -> Iterator[RayNodes]:
    """Give a Ray that has a head only, with these settings of `ray.init`."""
    nodes = RayNodes(**head)
    try:
        yield nodes
    finally:
        nodes.close()
