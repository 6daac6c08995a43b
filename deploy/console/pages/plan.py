"""A plan: what a rebalance, or a move of one's own, would do; then done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf import json_format
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.commands.options import model_version
from deploy.console.bars import Part, nested
from deploy.console.changes import Form, change, cluster_of, may_operate
from deploy.console.problems import Problem, problem_of, tried
from deploy.console.rendering import render
from deploy.controller_client import Overview, overview
from deploy.operation_watch import CHANGE_TIMEOUT_S, HasOperation
from deploy.planning import planned
from deploy.views.plans import summary
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import FieldViolation, InvalidInput

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_FIELDS = ("model", "from", "to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A shard before and after a plan."""

    shard: pb.ShardForecast
    before: Markup
    after: Markup


def forecasts(plan: pb.Plan) -> list[Forecast]:
    """Return what a plan does to each shard, all bars on the scale of the largest shard."""
    most = max((shard.capacity_bytes for shard in plan.shards), default=0) or 1
    return [
        Forecast(
            shard=shard,
            before=nested(Part(share=shard.before_bytes / most, kind="soft")),
            after=nested(Part(share=shard.after_bytes / most, kind="accent")),
        )
        for shard in plan.shards
    ]


async def _page(request: Request) -> Response:
    typed = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    cluster = cluster_of(request)
    seen = await tried(cluster.ask(overview))
    moves = _moves(typed)
    plan: pb.Plan | Problem = (
        moves if isinstance(moves, Problem) else await tried(cluster.ask(lambda stub: planned(stub, moves)))
    )
    problem = plan if isinstance(plan, Problem) else None
    operates = problem is None and await may_operate(request)
    return render(
        request,
        "plan.html",
        status=problem.status if problem else 200,
        typed=typed,
        seen=seen if isinstance(seen, Overview) else None,
        problem=problem,
        operates=operates,
        **({} if isinstance(plan, Problem) else _shown(plan)),
    )


def _moves(typed: dict[str, str]) -> Sequence[pb.Move] | Problem:
    """Return the move that was typed, none for a rebalance."""
    if not any(typed.values()):
        return ()
    try:
        model = model_version(typed["model"])
    except InvalidInput as error:
        return problem_of(error)
    return (pb.Move(model=model, from_shard_id=typed["from"], to_shard_id=typed["to"]),)


def _shown(plan: pb.Plan) -> dict[str, object]:
    return {
        "plan": plan,
        "summary": summary(plan),
        "forecasts": forecasts(plan),
        "document": json_format.MessageToJson(plan, indent=None),
    }


async def _apply(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    try:
        plan = json_format.Parse(form.get("plan", ""), pb.Plan())
    except json_format.ParseError as error:
        raise InvalidInput(FieldViolation("plan", f"is not a plan: {error}")) from error
    return await stub.ApplyPlan(pb.ApplyPlanRequest(plan=plan), timeout=CHANGE_TIMEOUT_S)


ROUTES = [Route("/plan", _page, methods=["GET"]), change("/plan/apply", _apply)]
