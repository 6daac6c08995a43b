"""Starts and ends the nodes of a Ray, in a process that does nothing else.

Ray runs Python between fork and exec. Forked from a process with many threads, such as that of the tests, a
part of Ray then hangs now and then before it begins. The argument is the head's settings as JSON; each line
of standard input adds a node with such settings, or kills the node that it names. Every answer is the head's
HOST:PORT.
"""

import json
import sys

from ray.cluster_utils import Cluster

_OBJECT_STORE_BYTES = 80 * 2**20


def main() -> None:
    """Keep the nodes until standard input ends."""
    common = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=json.loads(sys.argv[1]) | common)
    try:
        _answer(cluster)
        for line in sys.stdin:
            asked = json.loads(line)
            if "kill" in asked:
                doomed = next(node for node in cluster.worker_nodes if node.node_id == asked["kill"])
                cluster.remove_node(doomed, allow_graceful=False)
            else:
                cluster.add_node(**asked | common)
            _answer(cluster)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def _answer(cluster: Cluster) -> None:
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
