"""What happens to the cluster while searches flow. Each returns when the cluster is at full strength."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from protos.headrace.v1 import cluster_service_pb2 as pb
from tests.chaos import workload
from tests.chaos.cluster import CPUS_PER_NODE, ChaosCluster, send
from tests.chaos.full_strength import Sight

_MOVES_AT_ONCE = 5
_WHOLE_S = 90.0
_NEW_PROCESS_S = 60.0
_AGENT_AWAY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a scenario did, and how long after the blow the cluster was whole again; None without a blow."""

    moves: int = 0
    full_strength_s: float | None = None
    note: str = ""


Scenario = Callable[[ChaosCluster, random.Random], Outcome]


def planned_moves(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Move replicas between shards, some at a time, by plans that an operator makes and applies."""
    done = 0
    while done < cluster.moves:
        cluster.whole(_WHOLE_S)
        sight = cluster.desk.until(lambda _: True, 20.0, "the controller answers")
        wanted = _moves(sight, rng, min(_MOVES_AT_ONCE, cluster.moves - done))
        cluster.desk.apply(cluster.desk.plan(wanted))
        done += len(wanted)
    cluster.whole(_WHOLE_S)
    return Outcome(moves=done)


def _moves(sight: Sight, rng: random.Random, count: int) -> list[pb.Move]:
    """Draw moves of different bundles, each from a shard that holds it to one that does not."""
    shards = sorted(sight.lives)
    found: list[pb.Move] = []
    assignments = list(sight.placement.assignments)
    for each in rng.sample(assignments, len(assignments)):
        free = [shard for shard in shards if shard not in each.shard_ids]
        if free and len(found) < count:
            source, target = rng.choice(sorted(each.shard_ids)), rng.choice(free)
            found.append(pb.Move(model=each.model, from_shard_id=source, to_shard_id=target))
    if not found:
        raise RuntimeError("there is no shard to move anything to")
    return found


def drain(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Empty a shard, then use it again; then give it back what a rebalance gives it."""
    shard_id = f"shard-{rng.randrange(cluster.shards)}"
    cluster.desk.drain(shard_id)
    cluster.desk.until(lambda sight: not _held_by(sight, shard_id), 30.0, f"{shard_id} is empty")
    cluster.desk.undrain(shard_id)
    _rebalance(cluster)
    cluster.whole(_WHOLE_S)
    return Outcome(note=shard_id)


def _rebalance(cluster: ChaosCluster) -> None:
    plan = cluster.desk.plan([])
    if plan.moves:
        cluster.desk.apply(plan)


def _held_by(sight: Sight, shard_id: str) -> list[str]:
    return [model for model, shards in sight.holders().items() if shard_id in shards]


def scale_in(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Go from four shards to two, which hold everything then."""
    return _scale(cluster, 2)


def scale_out(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Go from two shards to four, and spread the bundles over them."""
    outcome = _scale(cluster, 4)
    _rebalance(cluster)
    cluster.whole(_WHOLE_S)
    return outcome


def _scale(cluster: ChaosCluster, shards: int) -> Outcome:
    was, cluster.shards = cluster.shards, shards
    cluster.desk.scale(shards)
    cluster.whole(_WHOLE_S)
    return Outcome(note=f"{was} -> {shards} shards")


def flip(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Bring the other release of a surface live, and roll back."""
    cluster.desk.deploy(workload.table_release(workload.FLIPPED, "2"))
    time.sleep(1.0)  # So that searches see the new release, which the figures show.
    cluster.desk.roll_back(workload.FLIPPED)
    cluster.whole(_WHOLE_S)
    return Outcome(note="r1 -> r2 -> r1")


def rolling_restart(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Restart every shard, one after the other."""
    sight = cluster.desk.until(lambda _: True, 20.0, "the controller answers")
    cluster.desk.restart()
    cluster.whole(_WHOLE_S, changed=sight.lives)
    return Outcome(note=f"{len(sight.shards)} shards")


def restart_routers(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Stop the routers by SIGTERM, one after the other; each is started again."""
    for name in cluster.routers:
        _replace(cluster, name, cluster.up.pid(name), signal.SIGTERM)
        cluster.whole(_WHOLE_S)
    return Outcome(note=f"{len(cluster.routers)} routers")


def kill_router(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Kill a router."""
    name = rng.choice(cluster.routers)
    hit_s = _replace(cluster, name, cluster.up.pid(name), signal.SIGKILL)
    return Outcome(full_strength_s=cluster.whole(_WHOLE_S) - hit_s, note=name)


def kill_shard(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Kill a shard's process."""
    shard_id = _holding_shard(cluster, rng)
    lives = _life_of(cluster, shard_id)
    hit_s = send(cluster.shard_pid(shard_id), signal.SIGKILL)
    return Outcome(full_strength_s=cluster.whole(_WHOLE_S, changed=lives) - hit_s, note=shard_id)


def hang_shard(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Stop a shard by SIGSTOP: it accepts connections and answers nobody. It has to be replaced."""
    shard_id = _holding_shard(cluster, rng)
    lives, pid = _life_of(cluster, shard_id), cluster.shard_pid(shard_id)
    hit_s = send(pid, signal.SIGSTOP)
    try:
        return Outcome(full_strength_s=cluster.whole(_WHOLE_S, changed=lives) - hit_s, note=shard_id)
    finally:
        _wake(pid)


def pause_shard(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Stop a shard by SIGSTOP and let it go on after two seconds, as a machine does that swaps."""
    shard_id = _holding_shard(cluster, rng)
    pid = cluster.shard_pid(shard_id)
    hit_s = send(pid, signal.SIGSTOP)
    try:
        time.sleep(2.0)
    finally:
        _wake(pid)
    return Outcome(full_strength_s=cluster.whole(_WHOLE_S) - hit_s, note=shard_id)


def kill_controller(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Kill the controller that leads; the other one takes over and commits."""
    pid = _leader(cluster)
    name = next(name for name in cluster.controllers if cluster.up.pid(name) == pid)
    hit_s = send(pid, signal.SIGKILL)
    cluster.desk.commits(within_s=30.0)
    whole_s = cluster.whole(_WHOLE_S)
    _replaced(cluster, name, pid)
    return Outcome(full_strength_s=whole_s - hit_s, note=f"{name} led")


def kill_agent(cluster: ChaosCluster, _: random.Random) -> Outcome:
    """Kill the Consul agent and start it again a second later; until a controller commits again."""
    cluster.agent.kill()
    hit_s = time.monotonic()
    time.sleep(_AGENT_AWAY_S)
    cluster.agent.start()
    cluster.desk.commits(within_s=60.0)
    return Outcome(full_strength_s=cluster.whole(_WHOLE_S) - hit_s)


def lose_node(cluster: ChaosCluster, rng: random.Random) -> Outcome:
    """Take a Ray node away with all that runs on it; what it held comes up on the others."""
    # Moves that an operator asks for, and a node lost before, may have left two replicas on one node.
    _rebalance(cluster)
    cluster.whole(_WHOLE_S)
    shard_id = _holding_shard(cluster, rng)
    sight = cluster.desk.until(lambda _: True, 20.0, "the controller answers")
    node = next(shard.node for shard in sight.shards if shard.shard_id == shard_id)
    lost = {shard.shard_id: shard.incarnation for shard in sight.shards if shard.node == node}
    hit_s = time.monotonic()
    cluster.nodes.kill(node)
    whole_s = cluster.whole(_WHOLE_S, changed=lost)
    cluster.nodes.add(1, cpus=CPUS_PER_NODE)
    return Outcome(full_strength_s=whole_s - hit_s, note=", ".join(lost))


def _replace(cluster: ChaosCluster, name: str, pid: int, number: signal.Signals) -> float:
    hit_s = send(pid, number)
    _replaced(cluster, name, pid)
    return hit_s


def _replaced(cluster: ChaosCluster, name: str, pid: int) -> None:
    """Return when another process has taken this one's place."""
    late_s = time.monotonic() + _NEW_PROCESS_S
    while cluster.up.workspace.running().processes.get(name, pid) == pid:
        if time.monotonic() > late_s:
            raise TimeoutError(f"{name} is not started again")
        time.sleep(0.05)


def _leader(cluster: ChaosCluster) -> int:
    late_s = time.monotonic() + 20.0
    while not (pid := cluster.leader_pid()):
        if time.monotonic() > late_s:
            raise TimeoutError("no controller leads")
        time.sleep(0.05)
    return pid


def _holding_shard(cluster: ChaosCluster, rng: random.Random) -> str:
    """Draw a shard that holds something."""
    sight = cluster.desk.until(lambda seen: bool(seen.holders()), 20.0, "a placement")
    return rng.choice(sorted({shard for shards in sight.holders().values() for shard in shards}))


def _life_of(cluster: ChaosCluster, shard_id: str) -> dict[str, str]:
    sight = cluster.desk.until(lambda seen: shard_id in seen.lives, 20.0, f"{shard_id} is listed")
    return {shard_id: sight.lives[shard_id]}


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A scenario and what is promised of it: whole within so many seconds of the blow, None without one."""

    name: str
    run: Scenario
    whole_within_s: float | None = None
    plain_may_fail: bool = False
    """Whether callers without retries may lose a search: those under way on a router that goes."""


KINDS = (
    Kind(name="moves", run=planned_moves),
    Kind(name="drain", run=drain),
    Kind(name="flip", run=flip),
    Kind(name="rolling-restart", run=rolling_restart),
    Kind(name="restart-routers", run=restart_routers, plain_may_fail=True),
    Kind(name="kill-router", run=kill_router, plain_may_fail=True),
    Kind(name="kill-shard", run=kill_shard, whole_within_s=5.0),
    Kind(name="kill-controller", run=kill_controller, whole_within_s=5.0),
    Kind(name="kill-agent", run=kill_agent, whole_within_s=5.0),
    Kind(name="hang-shard", run=hang_shard, whole_within_s=10.0),
    Kind(name="pause-shard", run=pause_shard, whole_within_s=10.0),
    Kind(name="scale-in", run=scale_in),
    Kind(name="scale-out", run=scale_out),
    Kind(name="lose-node", run=lose_node),
)
"""In the order of a full round: it begins and ends with four shards."""
