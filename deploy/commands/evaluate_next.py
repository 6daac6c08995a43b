"""`headrace eval-next`: what users take next that they never took, without a query."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands.evaluate import WORKSPACE_ROUTER
from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    DataDirOption,
    DatasetOption,
    JsonOption,
    SurfaceOption,
    WorkspaceOption,
)
from deploy.evaluation import OnlineOptions, browse_online
from deploy.folders import cache_dir
from deploy.progress import query_progress
from deploy.release_files import only_surface, read_release
from deploy.settings import caller_token
from deploy.workspace import Workspace
from router.gate import decide
from shards.errors import FieldViolation, InvalidInput
from training.datasets import sources
from training.evaluation.baselines import NEXT_BASELINES
from training.evaluation.next_items import DEPTH, NextFigures, next_items, recommend, summary
from training.evaluation.offline import open_cascade
from training.recipes import dataset_of


def evaluate_next(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: Annotated[Literal["valid", "test"], typer.Option(help="Where what users take is new.")] = "test",
    online: Annotated[
        str, typer.Option(help="Also ask this router, HOST:PORT, or 'up' for the workspace's own cluster.")
    ] = "",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what users take next, of what they never took before, without a query.

    With --online every user asks the running cluster too, and the exit code is 1 if a first page differs from
    that of the evaluation in one process.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    name = dataset or dataset_of(release.surface)
    data = sources.load(name, cache_dir=cache_dir(), data_dir=data_dir, seed=0)
    asked = next_items(data, split, history_limit=release.history_limit)
    if not asked:
        raise InvalidInput(FieldViolation("split", f"no user takes anything new in {split} of {data.name}"))
    cascade = open_cascade(release, folders.models_dir)
    with query_progress("in one process", len(asked)) as on_user:
        lists = recommend(
            cascade, asked, gate=lambda context, _: decide(release.gate, context).open, on_user=on_user
        )
    differing, last = 0, list(lists)[-1]
    if online:
        target = folders.running().router if online == WORKSPACE_ROUTER else online
        with query_progress(f"through {target}", len(asked)) as on_user:
            contexts = [user.context for user in asked]
            options = OnlineOptions(token=caller_token())
            pages = asyncio.run(
                browse_online(target, release, contexts, options, page_size=DEPTH, on_page=on_user)
            )
        differing = sum(page != here for page, here in zip(pages, lists[last], strict=True))
        lists[f"{last}, through the cluster"] = pages
    figures = summary(asked, lists)
    if as_json:
        document = {"dataset": data.name, "split": split, "release": release.name, "differing": differing}
        typer.echo(json.dumps(document | {"rankings": {k: asdict(v) for k, v in figures.items()}}, indent=2))
    else:
        Console().print(_table(f"{data.name}, {split}: {len(asked):,} users", figures, data.name, split))
    if differing:
        typer.echo(
            f"{differing} of {len(asked)} pages are not those of the evaluation in one process", err=True
        )
        raise typer.Exit(1)


def _table(title: str, figures: Mapping[str, NextFigures], dataset: str, split: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("ranking", overflow="fold")
    for name in ("Recall@20", "NDCG@20", "HR@20"):
        table.add_column(name, justify="right", no_wrap=True)
    for ranking, found in figures.items():
        ndcg = f"{found.ndcg_20:.4f} ± {found.ndcg_20_error:.4f}"
        table.add_row(ranking, f"{found.recall_20:.4f}", ndcg, f"{found.hit_rate_20:.4f}")
    for line in NEXT_BASELINES.get(dataset, ()) if split == "test" else ():
        cells = (f"{value:.3f}" for value in (line.recall_20, line.ndcg_20, line.hit_rate_20))
        table.add_row(f"other libraries: {line.ranking}", *cells, style="dim")
    return table
