"""Models: a line for each bundle, or all there is to know of one."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table

from deploy.views.live_quality import alarms_of
from deploy.views.shards import cold_of, replica_loads, replica_memory, replica_state
from deploy.views.table import bundle, facts, new_table, size, titled
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2


def models_table(models: Iterable[pb.Model]) -> Table:
    """Return a table of the bundles, where they are and what they are for."""
    headings = ("model", "stage", "memory", "ready", "recall", "live on")
    table = new_table("Models", *headings, numeric=("memory", "recall"), long=("model", "live on"))
    for model in models:
        table.add_row(
            titled(bundle(model.model), "\n".join(filter(None, (held(model.policy), alarms_of(model))))),
            _stage(model),
            size(model.memory_bytes) if model.memory_bytes else f"disk {size(model.size_bytes)}",
            _ready(model),
            _recall(model),
            ", ".join(model.surfaces) or "-",
        )
    return table


def model_facts(model: pb.Model) -> Group:
    """Return what is known of one bundle."""
    return facts(
        f"{model.model.model}@{model.model.version}",
        ("stage", _stage(model)),
        ("engine", model.engine),
        ("memory", size(model.memory_bytes) if model.memory_bytes else "not measured yet"),
        ("on disk", size(model.size_bytes)),
        ("load", f"{model.load:,.1f} requests/s"),
        ("asked on", ", ".join(model.shard_ids) or "no shard"),
        ("live on", ", ".join(model.surfaces) or "no surface"),
        ("held", held(model.policy) or "as its releases need it"),
        ("alarms", alarms_of(model)),
        ("recall", _recall(model)),
        ("metrics", ", ".join(f"{name} {value:.4g}" for name, value in sorted(model.metrics.items()))),
    )


def model_replicas(model: pb.Model) -> Table:
    """Return a table of the replicas of one bundle."""
    headings = ("shard", "state", "memory", "loads", "evicted", "requests")
    table = new_table("Replicas", *headings, numeric=headings[2:], long=("shard",))
    for held_on in model.replicas:
        replica = held_on.replica
        table.add_row(
            titled(held_on.shard_id, replica.error),
            replica_state(replica),
            replica_memory(replica),
            replica_loads(replica),
            str(replica.evictions or ""),
            f"{replica.requests:,}",
        )
    return table


def held(policy: pb.ModelPolicy) -> str:
    """Return how operators want a bundle held; empty where they said nothing."""
    words = [name for name in ("standalone", "pinned") if getattr(policy, name)]
    if policy.on_demand:
        words.append("on demand once it is unpinned" if policy.pinned else "on demand")
    if policy.min_replicas or policy.max_replicas:
        words.append(f"{policy.min_replicas or '…'} to {policy.max_replicas or '…'} replicas")
    return ", ".join(words)


def _recall(model: pb.Model) -> str:
    """Return the lowest recall of the replicas: the live one where it is known, else that of the goldens."""
    found = []
    for held_on in model.replicas:
        quality = held_on.replica.quality
        if quality.HasField("live_recall"):
            found.append(quality.live_recall.mean)
        elif quality.HasField("golden_recall"):
            found.append(quality.golden_recall.mean)
    return f"{min(found):.3f}" if found else ""


def _stage(model: pb.Model) -> str:
    return types_pb2.Stage.Name(model.stage).removeprefix("STAGE_").lower().replace("_", "-")


def _ready(model: pb.Model) -> str:
    """Return how many of the replicas that routers are told of can answer."""
    serving = (shard_service_pb2.REPLICA_STATE_READY, shard_service_pb2.REPLICA_STATE_COLD)
    ready = {held_on.shard_id for held_on in model.replicas if held_on.replica.state in serving}
    answering = f"{len(ready & set(model.shard_ids))} of {len(model.shard_ids)}"
    return answering + cold_of(held_on.replica for held_on in model.replicas)
