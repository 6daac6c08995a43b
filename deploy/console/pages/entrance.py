"""Logging in with a token of the cluster, and out."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from deploy.console.changes import form_of, refused
from deploy.console.problems import Problem
from deploy.console.rendering import cookie_name, keep_cookie, render
from services.bearer import bearer


async def _form(request: Request) -> Response:
    return render(request, "login.html", problem=None, onward=_own_path(request.query_params.get("next", "")))


async def _log_in(request: Request) -> Response:
    """Keep the token; whether the cluster knows it shows when it is asked something."""
    form = await form_of(request)
    if isinstance(form, Problem):
        return refused(request, form)
    token, onward = form.get("token", "").strip(), _own_path(form.get("next", ""))
    problem = _unfit(token)
    if problem:
        return render(request, "login.html", status=problem.status, problem=problem, onward=onward)
    visits = request.app.state.visits
    visits.log_out(request.state.visitor.visit_id)
    response = RedirectResponse(onward, 303)
    keep_cookie(request, response, visits.log_in(token))
    return response


async def _log_out(request: Request) -> Response:
    form = await form_of(request)
    if isinstance(form, Problem):
        return refused(request, form)
    request.app.state.visits.log_out(request.state.visitor.visit_id)
    response = RedirectResponse("/shards", 303)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="strict")
    return response


def _unfit(token: str) -> Problem | None:
    """Return what is wrong with what was typed, without repeating it."""
    try:
        if bearer(token):
            return None
        text = "Type the token that you were given."
    except ValueError as error:
        text = str(error)
    return Problem(title="That is no token", text=text, status=400)


def _own_path(path: str) -> str:
    """Return a path of this console, never an address of another site."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/shards"


ROUTES = [
    Route("/login", _form, methods=["GET"]),
    Route("/login", _log_in, methods=["POST"]),
    Route("/logout", _log_out, methods=["POST"]),
]
