"""Forms that change a cluster: who may send them, and what comes of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from deploy.console.cluster import Cluster
from deploy.console.console_settings import ConsoleSettings
from deploy.console.problems import Problem, tried
from deploy.console.rendering import render
from deploy.console.visits import Visitor, same_secret
from deploy.operation_watch import HasOperation
from protos.headrace.v1 import cluster_service_pb2 as pb
from router.credentials import Credentials

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

log = logging.getLogger(__name__)

Form = Mapping[str, str]
Wanted = Callable[["ClusterServiceAsyncStub", Form], Awaitable[HasOperation]]
Then = Callable[[Request, Form, pb.Operation], None]

_MOST_FIELDS = 50
_PATIENCE_S = 10.0
"""For the rest of a form, once it has begun."""

READ_ONLY = Problem(
    title="This console only looks",
    text="Changes need a token with the role operator, on a cluster that asks for tokens.",
    hint="Where a cluster asks nobody, start the console with --operate.",
    status=403,
)
_STRANGE = Problem(
    title="This form is out of date",
    text="It was made for another visit, or the console has restarted since.",
    hint="Go back, load the page anew and try again.",
    status=403,
)


def cluster_of(request: Request) -> Cluster:
    """Return the cluster, as its visitor may see it."""
    settings: ConsoleSettings = request.app.state.settings
    visitor: Visitor = request.state.visitor
    credentials = Credentials(token=visitor.token, tls=settings.tls)
    return Cluster(router=settings.router, controller=settings.controller, credentials=credentials)


async def may_operate(request: Request) -> bool:
    """Return whether to offer changes; the cluster itself decides once more when one is asked for.

    A token proves something only to a cluster that turns away those who have none.
    """
    settings: ConsoleSettings = request.app.state.settings
    if settings.operate:
        return True
    if request.state.visitor.token is None:
        return False
    asks = await tried(cluster_of(request).asks_for_tokens())
    return asks is True


async def form_of(request: Request) -> Form | Problem:
    """Return the fields of a form of ours, or why it is none."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            body = (await request.body()).decode()
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except (ValueError, TimeoutError) as error:
        return Problem(title="That is no form of this console", text=str(error), status=400)
    form = dict(pairs)
    return form if same_secret(form.pop("csrf", ""), request.state.visitor.csrf) else _STRANGE


def change(path: str, wanted: Wanted, then: Then | None = None) -> Route:
    """Return the route of a form: it asks for the change, and shows the operation or why there is none.

    `then` is told of the operation while it is under way.
    """

    async def sent(request: Request) -> Response:
        form = await form_of(request)
        if isinstance(form, Problem):
            return refused(request, form)
        if not await may_operate(request):
            return refused(request, READ_ONLY)
        done = await tried(cluster_of(request).ask(lambda stub: wanted(stub, form)))
        if isinstance(done, Problem):
            return refused(request, done)
        log.info("%s asked for: operation %s", path, done.operation.operation_id)
        if then:
            then(request, form, done.operation)
        return RedirectResponse(f"/operations/{done.operation.operation_id}", 303)

    return Route(path, sent, methods=["POST"])


def refused(request: Request, problem: Problem) -> Response:
    """Return a page with nothing but the problem."""
    return render(request, "problem.html", status=problem.status, problem=problem)
