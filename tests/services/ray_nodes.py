"""A Ray of several nodes on this machine; a node can be killed, with all that runs on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster

from services.shard_actor import NAMESPACE

_OBJECT_STORE_BYTES = 80 * 2**20


class RayNodes:
    """The test is a driver on the head, which has no CPU: shards that take one run on the others."""

    def __init__(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "include_dashboard": False,
            },
        )
        ray.init(
            address=self._cluster.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def add(self, count: int, *, cpus: int) -> None:
        """Add nodes."""
        for _ in range(count):
            self._cluster.add_node(num_cpus=cpus, object_store_memory=_OBJECT_STORE_BYTES)

    @property
    def address(self) -> str:
        """Return HOST:PORT of the head."""
        return str(self._cluster.address)

    def alive(self) -> int:
        """Return how many nodes there are."""
        return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]

    def kill(self, node_id: str) -> None:
        """Kill a node at once, as if its machine had lost its power."""
        doomed = next(node for node in self._cluster.worker_nodes if node.node_id == node_id)
        self._cluster.remove_node(doomed, allow_graceful=False)

    def node_of(self, shard_id: str) -> str:
        """Return the id of the node on which a shard runs, empty while it runs on none."""
        for actor in ray._private.state.actors().values():
            if actor["Name"] == shard_id and actor["State"] == "ALIVE":
                return str(actor["Address"]["NodeID"])
        return ""

    def close(self) -> None:
        """End all nodes."""
        ray.shutdown()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def ray_nodes() -> Iterator[RayNodes]:
    """Give a Ray that has a head only."""
    nodes = RayNodes()
    try:
        yield nodes
    finally:
        nodes.close()
