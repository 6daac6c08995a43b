"""When a cluster is whole again: all shards serve, and every bundle has all its replicas. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2

REPLICAS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A cluster as its controller saw it at one moment."""

    shards: Sequence[pb.Shard]
    placement: pb.Placement

    @property
    def lives(self) -> dict[str, str]:
        """Return the incarnation of every shard."""
        return {shard.shard_id: shard.incarnation for shard in self.shards}

    def holders(self) -> dict[str, list[str]]:
        """Return which shards answer for each bundle."""
        return {
            f"{each.model.model}@{each.model.version}": list(each.shard_ids)
            for each in self.placement.assignments
        }

    def problems(self, shards: int) -> list[str]:
        """Return what keeps the cluster from full strength; it shall have so many shards."""
        found = [] if len(self.shards) == shards else [f"{len(self.shards)} shards, not {shards}"]
        ready = {
            (shard.shard_id, replica.model.model, replica.model.version)
            for shard in self.shards
            for replica in shard.replicas
            if replica.state == shard_service_pb2.REPLICA_STATE_READY
        }
        endpoints = {endpoint.shard_id for endpoint in self.placement.endpoints}
        found += [
            f"{shard.shard_id} is {pb.ShardState.Name(shard.state)}"
            for shard in self.shards
            if shard.state != pb.SHARD_STATE_SERVING
        ]
        for each in self.placement.assignments:
            name = f"{each.model.model}@{each.model.version}"
            holders = set(each.shard_ids) & endpoints
            if len(holders) < REPLICAS:
                found.append(f"{name} is on {sorted(holders)} only")
            found += [
                f"{name} is not READY on {holder}"
                for holder in holders
                if (holder, each.model.model, each.model.version) not in ready
            ]
        return found

    def summary(self) -> str:
        """Return one line for people."""
        states = ", ".join(f"{s.shard_id} {pb.ShardState.Name(s.state)[12:].lower()}" for s in self.shards)
        problems = self.problems(len(self.shards))
        return f"generation {self.placement.generation}; {states}; {'; '.join(problems[:6]) or 'whole'}"
