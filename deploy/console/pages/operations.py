"""Operations: what was asked for, how far it is, how it ended; one of them live, and its end."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.changes import Form, change, cluster_of, may_operate, refused
from deploy.console.problems import Problem, tried
from deploy.console.rendering import fragment, render
from deploy.controller_client import TIMEOUT_S
from deploy.operation_watch import HasOperation
from protos.headrace.v1 import cluster_service_pb2 as pb

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_STOP_POLLING = 286
"""To htmx: this is the last."""


async def _list(request: Request) -> Response:
    found = await _listed(request)
    status = found.status if isinstance(found, Problem) else 200
    return render(request, "operations.html", status=status, **_shown(found))


async def _list_live(request: Request) -> Response:
    return fragment(request, "operations_live.html", **_shown(await _listed(request)))


async def _listed(request: Request) -> pb.ListOperationsResponse | Problem:
    wanted = pb.ListOperationsRequest()
    return await tried(cluster_of(request).ask(lambda stub: stub.ListOperations(wanted, timeout=TIMEOUT_S)))


def _shown(found: pb.ListOperationsResponse | Problem) -> dict[str, object]:
    if isinstance(found, Problem):
        return {"problem": found, "operations": []}
    return {"problem": None, "operations": list(reversed(found.operations))}


async def _one(request: Request) -> Response:
    found = await _found(request)
    if isinstance(found, Problem):
        return refused(request, found)
    operates = await may_operate(request)
    return render(request, "operation.html", problem=None, operation=found, operates=operates)


async def _one_live(request: Request) -> Response:
    found = await _found(request)
    if isinstance(found, Problem):
        return fragment(request, "operation_live.html", problem=found, operation=None)
    ended = found.state != pb.OPERATION_STATE_RUNNING
    response = fragment(request, "operation_live.html", problem=None, operation=found)
    if ended and response.status_code == 200:
        response.status_code = _STOP_POLLING
    return response


async def _found(request: Request) -> pb.Operation | Problem:
    wanted = pb.GetOperationRequest(operation_id=request.path_params["operation"])
    answer = await tried(cluster_of(request).ask(lambda stub: stub.GetOperation(wanted, timeout=TIMEOUT_S)))
    return answer if isinstance(answer, Problem) else answer.operation


async def _cancel(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    wanted = pb.CancelOperationRequest(operation_id=form.get("operation", ""))
    return await stub.CancelOperation(wanted, timeout=TIMEOUT_S)


ROUTES = [
    Route("/operations", _list, methods=["GET"]),
    Route("/operations/live", _list_live, methods=["GET"]),
    change("/operations/cancel", _cancel),
    Route("/operations/{operation}", _one, methods=["GET"]),
    Route("/operations/{operation}/live", _one_live, methods=["GET"]),
]
