"""The search playground: one search, and what each stage of it saw, scored and took."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.answers import funnel, item_views, stage_tables, time_rows
from deploy.console.changes import cluster_of
from deploy.console.cluster import Search
from deploy.console.filters import clauses_of
from deploy.console.moves import moves_picture
from deploy.console.problems import Problem, problem_of, tried
from deploy.console.rendering import render
from protos.headrace.v1 import cluster_service_pb2 as pb
from router.client_results import SearchResult
from shards.errors import FieldViolation, InvalidInput

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_FIELDS = ("surface", "q", "user", "items", "filter")
_MOST_ITEMS, _EXPLAINED = 100, 10
_PATIENCE_S = 2.0
_SILENT = (503, 504)


async def _page(request: Request) -> Response:
    typed = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    surfaces = await tried(cluster_of(request).ask(_surfaces))
    known_surfaces = [] if isinstance(surfaces, Problem) else surfaces
    typed["surface"] = typed["surface"] or next(iter(known_surfaces), "")
    result = await _searched(request, typed) if typed["q"] or typed["user"] else None
    problem = result if isinstance(result, Problem) else None
    return render(
        request,
        "search.html",
        status=problem.status if problem else 200,
        typed=typed,
        surfaces=known_surfaces,
        # Whoever may search and no more misses nothing here; a controller that is gone is news.
        controller_silent=isinstance(surfaces, Problem) and surfaces.status in _SILENT,
        problem=problem,
        answer=_answer(result) if isinstance(result, SearchResult) else None,
    )


async def _surfaces(stub: "ClusterServiceAsyncStub") -> list[str]:
    """Return the names by which can be searched; a controller that is slow keeps no search waiting."""
    found = await stub.ListReleases(pb.ListReleasesRequest(), timeout=_PATIENCE_S)
    return [*sorted(each.surface for each in found.surfaces), *sorted(found.aliases)]


async def _searched(request: Request, typed: Mapping[str, str]) -> SearchResult | Problem:
    try:
        search = Search(
            surface=typed["surface"],
            query=typed["q"],
            user_id=typed["user"],
            page_size=_items(typed["items"]),
            filter=clauses_of(typed["filter"]),
        )
    except InvalidInput as error:
        return problem_of(error)
    return await tried(cluster_of(request).search(search, contributions=min(search.page_size, _EXPLAINED)))


def _items(typed: str) -> int:
    if typed and not (typed.isdecimal() and 1 <= int(typed) <= _MOST_ITEMS):
        raise InvalidInput(FieldViolation("items", f"must be 1 to {_MOST_ITEMS}, not {typed!r}"))
    return int(typed or 10)


def _answer(result: SearchResult) -> dict[str, object]:
    return {
        "result": result,
        "items": item_views(result),
        "funnel": funnel(result),
        "times": time_rows(result.timings),
        "moves": moves_picture(result),
        "stages": stage_tables(result),
    }


ROUTES = [Route("/search", _page, methods=["GET"])]
