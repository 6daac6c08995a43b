"""Plans as commands ask for them: a dry run, or planned and applied in one go."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.controller_client import ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.views.plans import summary
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_PLAN_TIMEOUT_S = 30.0


async def planned(stub: "ClusterServiceAsyncStub", moves: Sequence[pb.Move]) -> pb.Plan:
    """Return the plan of a rebalance, or of these moves; nothing is applied."""
    response = await stub.PlanRebalance(pb.PlanRebalanceRequest(moves=moves), timeout=_PLAN_TIMEOUT_S)
    return response.plan


def apply_now(address: str, moves: Sequence[pb.Move], *, wait: bool, as_json: bool) -> None:
    """Plan a rebalance, or these moves, and apply that; where there is nothing to move, say so.

    Raises `Conflict` when the placement moves on between the two.
    """
    apply_plan(address, ask(address, lambda stub: planned(stub, moves)), wait=wait, as_json=as_json)


def apply_plan(address: str, plan: pb.Plan, *, wait: bool, as_json: bool) -> None:
    """Apply a plan; where there is nothing to move, say so. Raises `Conflict` when the placement moved on."""
    if not plan.moves:
        show(plan, summary(plan), as_json=as_json)
        return
    request = pb.ApplyPlanRequest(plan=plan)
    carry_out(
        address, lambda stub: stub.ApplyPlan(request, timeout=CHANGE_TIMEOUT_S), wait=wait, as_json=as_json
    )
