"""`headrace eval`: every ranking of a release on held-out queries, in one process and through the cluster."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from deploy.evaluation import OnlineOptions, OnlineRun, Tolerance, disagreements, run_online
from deploy.evaluation_table import Evaluation, as_document, render
from deploy.folders import cache_dir
from deploy.release_files import only_surface, read_release
from deploy.settings import caller_token
from deploy.workspace import Workspace
from router.gate import decide
from shards.bundle import read_manifest
from shards.manifest import Manifest
from shards.release import Release
from training.datasets import sources
from training.evaluation.baselines import BASELINES
from training.evaluation.judgements import Judged, judged_queries
from training.evaluation.offline import evaluate as evaluate_offline
from training.evaluation.offline import open_cascade
from training.evaluation.report import Ranks, compare

WORKSPACE_ROUTER = "up"
"""What `--online` takes for the router of the workspace's own cluster."""

_ENGINES = {"lexical": "BM25", "two_tower": "two-tower"}
"""Engines that a channel's name need not give away, as the field calls them."""


def evaluate(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: Annotated[
        str, typer.Option(help="Whose release to evaluate; needed if the workspace has several.")
    ] = "",
    dataset: Annotated[
        str,
        typer.Option(help="movielens, online_retail or a folder of Parquet tables; default: the surface."),
    ] = "",
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option(help="Which part of the queries.")
    ] = "test",
    limit: Annotated[
        int, typer.Option(min=0, help="Size of the sample of queries, the same every time; 0 takes all.")
    ] = 1000,
    online: Annotated[
        str, typer.Option(help="Also ask this router, HOST:PORT, or 'up' for the workspace's own cluster.")
    ] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Searches in flight at once, online.")] = 4,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="HEADRACE_DATA_DIR", help="Folder that holds online_retail/.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed that training chose the proxy queries with.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare popularity, BM25, two-tower, hybrid and the full cascade on held-out queries.

    With --online the same queries go through the running cluster, and the exit code is 1 if its figures are
    not those of the evaluation in one process.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    data = sources.load(
        dataset or release.surface.replace("-", "_"), cache_dir=cache_dir(), data_dir=data_dir, seed=seed
    )
    judged = judged_queries(data, split, limit=limit, history_limit=release.history_limit)
    offline = _offline(release, folders.models_dir, judged)
    target = folders.running().router if online == WORKSPACE_ROUTER else online
    options = OnlineOptions(concurrency=concurrency, token=caller_token())
    run = _online(target, release, judged, options) if target else None
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
    if as_json:
        typer.echo(json.dumps(as_document(evaluation), indent=2))
    else:
        Console().print(render(evaluation))
    if evaluation.disagreements:
        raise typer.Exit(1)


def _offline(release: Release, models_dir: Path, judged: list[Judged]) -> Ranks:
    cascade = open_cascade(release, models_dir)
    with _progress("in one process", len(judged)) as on_query:
        return evaluate_offline(
            cascade, judged, gate=lambda context: decide(release.gate, context).open, on_query=on_query
        )


def _online(target: str, release: Release, judged: list[Judged], options: OnlineOptions) -> OnlineRun:
    with _progress(f"through {target}", len(judged)) as on_query:
        return asyncio.run(run_online(target, release, judged, options, on_query=on_query))


def _labels(release: Release, models_dir: Path) -> dict[str, str]:
    first = {c.name: c.bundles()[0] for c in release.channels}
    manifests = {name: read_manifest(models_dir / m.model / m.version) for name, m in first.items()}
    return {name: f"{name} ({_engine(m)})" for name, m in manifests.items() if m.engine in _ENGINES}


def _engine(manifest: Manifest) -> str:
    prior = manifest.params.get("prior")
    return f"{_ENGINES[manifest.engine]} and {prior}" if prior else _ENGINES[manifest.engine]


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error, so that standard output holds the result alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)
