"""The gate: how it decides, how often it opens now, and what an evaluation says of that."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.answers import Row
from deploy.console.bars import Part, nested
from deploy.console.changes import cluster_of
from deploy.console.charts import Axis, Line, chart
from deploy.console.gate_rates import GateRates
from deploy.console.gate_report import read_curves
from deploy.console.problems import Problem, tried
from deploy.console.rendering import fragment, render
from deploy.controller_client import TIMEOUT_S
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.release import LEARNED_MODES

_SPAN_S, _WINDOW_S = 1800.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCard:
    """A surface's gate; `rate` is the share that opened lately, None where no search is known of."""

    surface: pb.SurfaceReleases
    learned: bool
    target: bool
    """Whether a share of the searches is asked for."""
    rate: float | None
    decided: int
    reasons: Sequence[Row]
    picture: Markup | None


def card(surface: pb.SurfaceReleases, rates: GateRates, now_s: float) -> GateCard:
    """Return what there is to show of a surface's gate."""
    gate = surface.live.gate
    learned = gate.mode in LEARNED_MODES
    target = learned and gate.HasField("target_rate")
    counts = rates.since(surface.surface, now_s - _SPAN_S)
    decided = counts.total()
    opened = sum(count for each, count in counts.items() if each.open)
    return GateCard(
        surface=surface,
        learned=learned,
        target=target,
        rate=opened / decided if decided else None,
        decided=decided,
        reasons=[
            Row(
                name=each.reason,
                value=count / decided,
                detail="open" if each.open else "closed",
                bar=nested(Part(share=count / decided, kind="accent" if each.open else "other")),
            )
            for each, count in counts.most_common()
            if count
        ],
        picture=_picture(surface, rates, now_s, target=target),
    )


def _picture(surface: pb.SurfaceReleases, rates: GateRates, now_s: float, *, target: bool) -> Markup | None:
    """Return the live rate over time, beside what it shall be; None before two looks saw searches."""
    points = [((at_s - now_s) / 60, rate) for at_s, rate in rates.curve(surface.surface, _WINDOW_S)]
    if len(points) < 2:
        return None
    lines = [Line(name="opened, of a minute's searches", kind="accent", points=points)]
    begin = min(-1.0, points[0][0])
    if target:
        aim = surface.live.gate.target_rate
        lines.append(Line(name="target", kind="warn", points=[(begin, aim), (0.0, aim)], dotted=True))
    x = Axis(
        low=begin,
        high=0.0,
        ticks=[begin, begin / 2, 0.0],
        words=lambda minutes: f"{minutes:.1f} min" if minutes else "now",
    )
    y = Axis(low=0.0, high=1.0, ticks=[0.0, 0.25, 0.5, 0.75, 1.0], words="{:.0%}".format)
    return chart(lines, x, y, label=f"Share of searches on {surface.surface} that opened the gate, by time")


async def _page(request: Request) -> Response:
    known = await _known(request)
    problem = known["problem"]
    status = problem.status if isinstance(problem, Problem) else 200
    curves = None if problem else read_curves(request.app.state.settings.gate_report)
    return render(request, "gate.html", status=status, curves=curves, **known)


async def _live(request: Request) -> Response:
    return fragment(request, "gate_live.html", **await _known(request))


async def _known(request: Request) -> dict[str, object]:
    found = await tried(
        cluster_of(request).ask(lambda stub: stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S))
    )
    if isinstance(found, Problem):
        return {"problem": found, "cards": []}
    rates: GateRates = request.app.state.gate_rates
    now_s = time.monotonic()
    return {
        "problem": None,
        "cards": [card(surface, rates, now_s) for surface in found.surfaces],
        "seen_from_here": bool(rates.buckets),
    }


ROUTES = [
    Route("/gate", _page, methods=["GET"]),
    Route("/gate/live", _live, methods=["GET"]),
]
