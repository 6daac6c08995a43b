"""Live quality: what indexes miss beside an exact search, and which scores and features have drifted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.bars import Part, largest, nested
from deploy.console.changes import cluster_of
from deploy.console.problems import Problem, tried
from deploy.console.rendering import fragment, render
from deploy.controller_client import TIMEOUT_S
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallRow:
    """The recall of a replica: of live searches where there were any, else None; and of its goldens."""

    model: pb.Model
    shard_id: str
    live: shard_service_pb2.Recall | None
    golden: shard_service_pb2.Recall | None
    alarm: bool
    bar: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """A score or feature of a replica, and how far it is from training."""

    model: pb.Model
    shard_id: str
    drift: shard_service_pb2.Drift
    bar: Markup


def is_watched(models: Iterable[pb.Model]) -> bool:
    """Return whether anything is known of the quality of what is answered."""
    return any(held.replica.HasField("quality") for model in models for held in model.replicas)


def note_watched(request: Request, models: Iterable[pb.Model]) -> None:
    """Have the menu name this page from now on, where there is anything on it."""
    if is_watched(models):
        request.app.state.watched = True


def recall_rows(models: Iterable[pb.Model]) -> list[RecallRow]:
    """Return the replicas whose answers were compared with exact ones, alarms first."""
    rows = []
    for model, shard_id, quality in _watched(models):
        live = quality.live_recall if quality.HasField("live_recall") else None
        golden = quality.golden_recall if quality.HasField("golden_recall") else None
        known = live or golden
        if known is None:
            continue
        rows.append(
            RecallRow(
                model=model,
                shard_id=shard_id,
                live=live,
                golden=golden,
                alarm=quality.recall_alarm,
                bar=nested(Part(share=known.mean, kind="takes" if quality.recall_alarm else "accent")),
            )
        )
    return sorted(rows, key=lambda row: not row.alarm)


def drift_rows(models: Iterable[pb.Model]) -> list[DriftRow]:
    """Return what is furthest from training, those that drifted first."""
    found = [
        (model, shard_id, drift) for model, shard_id, quality in _watched(models) for drift in quality.drifts
    ]
    found.sort(key=lambda each: (not each[2].drifted, -each[2].psi))
    most = largest(drift.psi for _, _, drift in found)
    return [
        DriftRow(
            model=model,
            shard_id=shard_id,
            drift=drift,
            bar=nested(Part(share=drift.psi / most, kind="takes" if drift.drifted else "soft")),
        )
        for model, shard_id, drift in found
    ]


def _watched(
    models: Iterable[pb.Model],
) -> Sequence[tuple[pb.Model, str, shard_service_pb2.LiveQuality]]:
    return [
        (model, held.shard_id, held.replica.quality)
        for model in models
        for held in model.replicas
        if held.replica.HasField("quality")
    ]


async def _page(request: Request) -> Response:
    known = await _known(request)
    problem = known["problem"]
    status = problem.status if isinstance(problem, Problem) else 200
    return render(request, "quality.html", status=status, **known)


async def _live(request: Request) -> Response:
    return fragment(request, "quality_live.html", **await _known(request))


async def _known(request: Request) -> dict[str, object]:
    found = await tried(
        cluster_of(request).ask(lambda stub: stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S))
    )
    if isinstance(found, Problem):
        return {"problem": found, "recalls": [], "drifts": []}
    note_watched(request, found.models)
    return {
        "problem": None,
        "recalls": recall_rows(found.models),
        "drifts": drift_rows(found.models),
    }


ROUTES = [
    Route("/quality", _page, methods=["GET"]),
    Route("/quality/live", _live, methods=["GET"]),
]
