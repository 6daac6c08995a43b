"""`headrace eval`: every ranking of a release on held-out queries, in one process and through the cluster."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    DataDirOption,
    DatasetOption,
    JsonOption,
    LimitOption,
    ProjectOption,
    QuerySeedOption,
    SplitOption,
    SurfaceOption,
    WorkspaceOption,
)
from deploy.evaluation import OnlineOptions, OnlineRun, Tolerance, disagreements, run_online
from deploy.evaluation_report import write_report
from deploy.evaluation_table import Evaluation, as_document, render
from deploy.gate_rule import gate_rule
from deploy.held_out import HeldOut
from deploy.known_recipes import recipe_of
from deploy.progress import query_progress
from deploy.refreshing import run_of
from deploy.replaying import Cluster, replay_online
from deploy.settings import caller_credentials
from deploy.workspace import Workspace, workspace_of
from shards.bundle import read_manifest
from shards.errors import FieldViolation, InvalidInput
from shards.manifest import Manifest
from shards.release import Release
from training.datasets.tables import Dataset
from training.evaluation.baselines import BASELINES
from training.evaluation.judgements import Judged
from training.evaluation.offline import GateRule, open_cascade
from training.evaluation.offline import evaluate as evaluate_offline
from training.evaluation.replay import replay
from training.evaluation.report import Ranks, compare

WORKSPACE_ROUTER = "up"
"""What `--online` takes for the router of the workspace's own cluster."""

_ENGINES = {"lexical": "BM25", "two_tower": "two-tower"}
"""Engines that a channel's name need not give away, as the field calls them."""


def evaluate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: ProjectOption = None,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: SplitOption = "test",
    limit: LimitOption = 1000,
    online: Annotated[
        str, typer.Option(help="Also ask this router, HOST:PORT, or 'up' for the workspace's own cluster.")
    ] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Searches in flight at once, online.")] = 4,
    refresh_days: Annotated[
        float, typer.Option(min=0, help="Refresh the release so often while the queries go by; 0: never.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a report: eval.json, eval.txt, eval.png.")
    ] = None,
    data_dir: DataDirOption = None,
    seed: QuerySeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare popularity, BM25, two-tower, hybrid and the full cascade on held-out queries.

    With --online the same queries go through the running cluster, and the exit code is 1 if its figures are
    not those of the evaluation in one process.
    """
    folders = workspace_of(project, workspace)
    held_out = HeldOut(
        surface=surface, dataset=dataset, split=split, limit=limit, data_dir=data_dir, seed=seed
    )
    release = held_out.release(folders)
    data, judged = held_out.queries(release, folders)
    options = OnlineOptions(concurrency=concurrency, credentials=caller_credentials())
    if refresh_days:
        offline, run = _replayed_split(folders, release, data, judged, refresh_days, online, options)
    else:
        offline, run = _asked(folders, release, judged, online, options)
    evaluation = Evaluation(
        dataset=data.name,
        split=split,
        release=f"{release.surface} {release.version}",
        queries_are_proxies=data.queries_are_proxies,
        offline=offline,
        online=run.ranks if run else None,
        degraded=run.degraded if run else (),
        disagreements=disagreements(compare(offline, run.ranks), Tolerance()) if run else (),
        baselines=BASELINES.get(data.name, ()) if split == "test" else (),
        labels=_labels(release, folders.models_dir),
    )
    if out:
        write_report(out, evaluation)
    _show(evaluation, as_json=as_json)
    if evaluation.disagreements:
        raise typer.Exit(1)


def _show(evaluation: Evaluation, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(as_document(evaluation), indent=2))
    else:
        Console().print(render(evaluation))


def _asked(
    folders: Workspace, release: Release, judged: list[Judged], online: str, options: OnlineOptions
) -> tuple[Ranks, OnlineRun | None]:
    target = folders.running().router if online == WORKSPACE_ROUTER else online
    run = _online(target, release, judged, options) if target else None
    # Through a cluster the gate goes by its budget too: the same searches open it in both evaluations.
    gate = _replayed(run.opened) if run else gate_rule(release, folders.models_dir)
    return _offline(release, folders.models_dir, judged, gate), run


def _offline(release: Release, models_dir: Path, judged: list[Judged], gate: GateRule) -> Ranks:
    cascade = open_cascade(release, models_dir)
    with query_progress("in one process", len(judged)) as on_query:
        return evaluate_offline(cascade, judged, gate=gate, on_query=on_query)


def _replayed_split(
    folders: Workspace,
    release: Release,
    data: Dataset,
    judged: list[Judged],
    days: float,
    online: str,
    options: OnlineOptions,
) -> tuple[Ranks, OnlineRun | None]:
    run = run_of(recipe_of(release.surface, folders), data, release, folders)
    if online not in ("", WORKSPACE_ROUTER):
        problem = f"with refresh-days must be {WORKSPACE_ROUTER!r}: releases are deployed as well"
        raise InvalidInput(FieldViolation("online", problem))
    with query_progress(f"refreshed every {days:g} days", len(judged)) as on_query:
        if not online:
            gate = gate_rule(release, folders.models_dir)
            return replay(run, release, folders.models_dir, judged, days, gate=gate, on_query=on_query), None
        running = folders.running()
        cluster = Cluster(controller=running.controller, router=running.router)
        found = replay_online(run, release, folders, judged, days, cluster, options, on_query=on_query)
    return found.offline, found.online


def _replayed(opened: Sequence[bool]) -> GateRule:
    """Return the gate that opens for the same queries again, in their order."""
    remembered = iter(opened)
    return lambda _context, _retrieved: next(remembered)


def _online(target: str, release: Release, judged: list[Judged], options: OnlineOptions) -> OnlineRun:
    with query_progress(f"through {target}", len(judged)) as on_query:
        return asyncio.run(run_online(target, release, judged, options, on_query=on_query))


def _labels(release: Release, models_dir: Path) -> dict[str, str]:
    first = {c.name: c.bundles()[0] for c in release.channels}
    manifests = {name: read_manifest(models_dir / m.model / m.version) for name, m in first.items()}
    return {name: f"{name} ({_engine(m)})" for name, m in manifests.items() if m.engine in _ENGINES}


def _engine(manifest: Manifest) -> str:
    prior = manifest.params.get("prior")
    return f"{_ENGINES[manifest.engine]} and {prior}" if prior else _ENGINES[manifest.engine]
