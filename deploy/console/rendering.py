"""Pages from templates; what every page knows of its visitor, and how values read."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from deploy.console.problems import Problem
from deploy.console.visits import Visitor
from deploy.views.operations import SHORT_ID, steps, took, what
from deploy.views.table import seconds_of, size, span, style_of
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

COOKIE_LIFE_S = 12 * 3600

_STATES = {
    "shard": pb.DESCRIPTOR.enum_types_by_name["ShardState"],
    "operation": pb.DESCRIPTOR.enum_types_by_name["OperationState"],
    "replica": shard_service_pb2.DESCRIPTOR.enum_types_by_name["ReplicaState"],
}

_NEWER = "unknown"
"""What a cluster says in a contract that is newer than ours."""

_TONES = {"green": "good", "red": "bad", "dim": "idle", "yellow": "warn"}


class PageLink(NamedTuple):
    """A page in the menu; `key` opens it after "g"."""

    name: str
    path: str
    key: str


PAGES = (
    PageLink("Shard map", "/shards", "m"),
    PageLink("Search", "/search", "s"),
    PageLink("Gate", "/gate", "g"),
    PageLink("Releases", "/releases", "r"),
    PageLink("Plan", "/plan", "p"),
    PageLink("Operations", "/operations", "o"),
)
QUALITY = PageLink("Quality", "/quality", "q")
"""Shown once a cluster has said anything of it."""


def render(request: Request, template: str, /, *, status: int = 200, **known: object) -> Response:
    """Return a page, and give the browser its cookie."""
    visitor: Visitor = request.state.visitor
    found = _ENVIRONMENT.get_template(template).render(
        visitor=visitor,
        settings=request.app.state.settings,
        path=request.url.path,
        pages=(*PAGES, QUALITY) if request.app.state.watched else PAGES,
        **known,
    )
    response = HTMLResponse(found, status)
    keep_cookie(request, response, visitor)
    return response


def fragment(request: Request, template: str, /, **known: object) -> Response:
    """Return a part of a page that a browser asks for again and again: 204 where it has it already."""
    found = _ENVIRONMENT.get_template(template).render(visitor=request.state.visitor, **known)
    seen = sha256(found.encode()).hexdigest()[:16]
    if request.query_params.get("seen") == seen:
        return Response(status_code=204)
    return HTMLResponse(found, headers={"x-headrace-seen": seen})


def keep_cookie(request: Request, response: Response, visitor: Visitor) -> None:
    """Set the visitor's cookie where the browser has another one or none.

    A visit from another site comes without the cookie that there may be, which must not be replaced then.
    """
    name = cookie_name(request)
    known = request.cookies.get(name) == visitor.visit_id
    if known or request.headers.get("sec-fetch-site") == "cross-site":
        return
    response.set_cookie(
        name,
        visitor.visit_id,
        max_age=COOKIE_LIFE_S,
        httponly=True,
        samesite="strict",
        secure=request.app.state.settings.secure,
    )


def cookie_name(request: Request) -> str:
    """Return the name of the cookie: browsers share cookies among all ports of a host."""
    return f"headrace_{request.url.port or 0}"


def first_of(*found: object) -> Problem | None:
    """Return the first of these that is a problem."""
    return next((each for each in found if isinstance(each, Problem)), None)


def _state(value: int, kind: str) -> str:
    """Return the word of a state that the contract names KIND_STATE_WORD."""
    known = _STATES[kind].values_by_number.get(value)
    return known.name.removeprefix(f"{kind.upper()}_STATE_").lower() if known else _NEWER


def _stage(value: types_pb2.Stage.ValueType) -> str:
    known = types_pb2.DESCRIPTOR.enum_types_by_name["Stage"].values_by_number.get(value)
    return known.name.removeprefix("STAGE_").lower().replace("_", "-") if known else _NEWER


def _tone(state: str) -> str:
    return _TONES[style_of(state)]


def _model(model: types_pb2.ModelVersion) -> str:
    return f"{model.model}@{model.version}"


def _clock(moment: object) -> str:
    return datetime.fromtimestamp(seconds_of(moment), UTC).strftime("%Y-%m-%d %H:%M:%S")  # type: ignore[arg-type]


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "size": size,
        "span": span,
        "seconds": seconds_of,
        "state": _state,
        "stage": _stage,
        "tone": _tone,
        "model": _model,
        "clock": _clock,
        "figure": _figure,
        "what": what,
        "took": took,
        "steps": steps,
        "short": lambda text: text[:SHORT_ID],
    }
    made.filters.update(filters)
    made.globals["version"] = _version_of(sorted(STATIC.iterdir()))
    return made


def _version_of(files: Sequence[Path]) -> str:
    """Return a word that changes with these files, so that browsers fetch new ones."""
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]


_ENVIRONMENT = _environment()
