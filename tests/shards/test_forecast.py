from dataclasses import replace

import pytest

from shards.cluster_state import ClusterState
from shards.forecast import forecast
from shards.planner import PlannedMove
from tests.shards.controller_rig import Rig, release, version

RANKER = version("ranker")


def _on_nodes(nodes: dict[str, str]) -> tuple[ClusterState, tuple[str, ...], int]:
    """Return a cluster with shards on these nodes, who holds the ranker twice, and the time."""
    rig = Rig(*nodes)
    rig.see()
    rig.live(release("1"))
    views = {shard: replace(view, node_id=nodes[shard]) for shard, view in rig.state.shards.items()}
    return replace(rig.state, shards=views), rig.holders("ranker"), rig.now_ms


def _reason(state: ClusterState, source: str, target: str, now_ms: int) -> str:
    move = PlannedMove(model=RANKER, from_shard=source, to_shard=target, memory_bytes=0, reason="asked for")
    (told,) = forecast(state, (move,), now_ms).plan.moves
    return told.reason


@pytest.mark.parametrize("crowded", [True, False])
def test_a_move_that_puts_two_replicas_on_one_node_says_so(crowded: bool) -> None:
    names = [f"shard-{n}" for n in range(4)]
    _, (stays, goes), _ = _on_nodes(dict.fromkeys(names, "node-a"))
    target, other = (name for name in names if name not in (stays, goes))
    beside = {stays: "node-a", target: "node-a", goes: "node-b", other: "node-b"}
    apart = {stays: "node-a", target: "node-b", goes: "node-b", other: "node-a"}
    state, _, now_ms = _on_nodes(beside if crowded else apart)
    told = "asked for; node node-a will hold 2 of 2 replicas" if crowded else "asked for"
    assert _reason(state, goes, target, now_ms) == told


def test_on_a_single_node_there_is_nothing_to_warn_of() -> None:
    names = [f"shard-{n}" for n in range(3)]
    state, (_, goes), now_ms = _on_nodes(dict.fromkeys(names, "node-a"))
    (target,) = set(names) - set(state.placement.assignments[RANKER].shard_ids)
    assert _reason(state, goes, target, now_ms) == "asked for"
