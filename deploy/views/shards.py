"""Shards: a line for each, or all there is to know of one."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.views.table import bundle, facts, new_table, seconds_of, size, span, state_text, titled
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2


def shards_table(shards: Iterable[pb.Shard], title: str = "Shards") -> Table:
    """Return a table of the shards and what they hold."""
    headings = ("shard", "state", "address", "ready", "memory", "of", "load/s")
    table = new_table(title, *headings, numeric=("memory", "of", "load/s"), long=("address",))
    for shard in shards:
        table.add_row(
            shard.shard_id,
            state_text(pb.ShardState.Name(shard.state), "SHARD_STATE_"),
            shard.address,
            _ready(shard),
            size(shard.memory_bytes),
            size(shard.capacity_bytes),
            f"{shard.load:,.1f}",
        )
    return table


def shard_facts(shard: pb.Shard) -> Group:
    """Return what is known of one shard."""
    bundles = f"{size(shard.memory_bytes)} of {size(shard.capacity_bytes)}"
    gpu_bytes = sum(replica.gpu_memory_bytes for replica in shard.replicas)
    gpu = f"{size(gpu_bytes)} of {size(shard.gpu_capacity_bytes)}"
    return facts(
        shard.shard_id,
        ("state", state_text(pb.ShardState.Name(shard.state), "SHARD_STATE_")),
        ("address", shard.address),
        ("node", shard.node),
        ("process", str(shard.pid or "")),
        ("bundles", f"{bundles}, ready {_ready(shard)}"),
        ("GPU", gpu if shard.gpu_capacity_bytes else ""),
        ("resident", size(shard.resident_bytes) if shard.resident_bytes else ""),
        ("load", f"{shard.load:,.1f} requests/s"),
        ("wants a restart", shard.recycle_reason),
    )


def replicas_table(replicas: Iterable[shard_service_pb2.Replica]) -> Table:
    """Return a table of the bundles on one shard."""
    headings = ("model", "state", "memory", "loads", "evicted", "requests")
    table = new_table("Bundles", *headings, numeric=headings[2:], long=("model",))
    for replica in replicas:
        table.add_row(
            titled(bundle(replica.model), replica.error),
            replica_state(replica),
            replica_memory(replica),
            replica_loads(replica),
            str(replica.evictions or ""),
            f"{replica.requests:,}",
        )
    return table


def replica_state(replica: shard_service_pb2.Replica) -> Text:
    """Return the state of a bundle on a shard, in colour."""
    return state_text(shard_service_pb2.ReplicaState.Name(replica.state), "REPLICA_STATE_")


def replica_memory(replica: shard_service_pb2.Replica) -> Text:
    """Return what a bundle uses on a shard; in brackets what it used when it was last loaded."""
    used_bytes = replica.memory_bytes + replica.gpu_memory_bytes
    if replica.state == shard_service_pb2.REPLICA_STATE_READY:
        return Text(size(used_bytes))
    return Text(f"({size(used_bytes)})" if used_bytes else "", "dim")


def replica_loads(replica: shard_service_pb2.Replica) -> str:
    """Return how often a bundle was loaded in this life of its shard, and how long the last time took."""
    if not replica.HasField("load_time") or not replica.loads:
        return ""
    return f"{replica.loads} x {span(seconds_of(replica.load_time))}"


def cold_of(replicas: Iterable[shard_service_pb2.Replica]) -> str:
    """Return how many are cold, as they answer later than others; nothing where none is."""
    cold = sum(replica.state == shard_service_pb2.REPLICA_STATE_COLD for replica in replicas)
    return f", {cold} cold" if cold else ""


def _ready(shard: pb.Shard) -> str:
    serving = (shard_service_pb2.REPLICA_STATE_READY, shard_service_pb2.REPLICA_STATE_COLD)
    answering = f"{sum(replica.state in serving for replica in shard.replicas)} of {len(shard.replicas)}"
    return answering + cold_of(shard.replicas)
