"""The console as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.console.changes import refused
from deploy.console.console_settings import ConsoleSettings
from deploy.console.gate_rates import GateRates, watch_gates
from deploy.console.guard import Guard
from deploy.console.pages import entrance, gate, operations, plan, quality, releases, search, shards
from deploy.console.problems import Problem
from deploy.console.rendering import STATIC, cookie_name
from deploy.console.visits import Visits
from deploy.workspace import Workspace


def console(settings: ConsoleSettings) -> ASGIApp:
    """Return the application."""
    visits = Visits()
    app = Starlette(
        routes=[
            Route("/", _home),
            *shards.ROUTES,
            *search.ROUTES,
            *gate.ROUTES,
            *releases.ROUTES,
            *quality.ROUTES,
            *plan.ROUTES,
            *operations.ROUTES,
            *entrance.ROUTES,
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(_Recognised, visits=visits)],
        exception_handlers={HTTPException: _http_problem, Exception: _fault},
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.visits = visits
    app.state.gate_rates = GateRates()
    app.state.watched = False
    return Guard(app, settings.names)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Give the application a place for what goes on behind its pages, and end that with it."""
    tasks: set[asyncio.Task[None]] = set()
    app.state.tasks = tasks
    workspace = app.state.settings.workspace
    if workspace:
        tasks.add(asyncio.create_task(watch_gates(app.state.gate_rates, Workspace(workspace).metrics_dir)))
    try:
        yield
    finally:
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _home(_: Request) -> Response:
    return RedirectResponse("/shards", 303)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = "There is no such page" if error.status_code == 404 else "That cannot be asked for"
    return refused(request, Problem(title=title, text=error.detail, status=error.status_code))


async def _fault(request: Request, _: Exception) -> Response:
    text = "The console has made a mistake. Its log says which."
    return refused(request, Problem(title="Something went wrong", text=text, status=500))


class _Recognised:
    """Finds the visitor of each request by its cookie."""

    def __init__(self, app: ASGIApp, visits: Visits) -> None:
        self._app = app
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the visitor, and go on."""
        if scope["type"] == "http":
            request = Request(scope)
            cookie = request.cookies.get(cookie_name(request))
            request.state.visitor = self._visits.visitor(cookie) if cookie else self._visits.newcomer()
        await self._app(scope, receive, send)
