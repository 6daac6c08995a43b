"""`headrace eval-next`: what users take next that they never took, without a query."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Literal

import typer
from rich.console import Console

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
from deploy.known_recipes import dataset_of
from deploy.next_table import EXCLUDED, KEPT, next_table
from deploy.progress import query_progress
from deploy.release_files import only_surface, read_release
from deploy.settings import caller_credentials
from deploy.workspace import Workspace
from router.gate import decide
from shards.errors import FieldViolation, InvalidInput
from shards.release import Release
from training.datasets import sources
from training.evaluation.baselines import NEXT_BASELINES
from training.evaluation.next_items import (
    DEPTH,
    NextItems,
    keeping,
    leaving_out,
    next_items,
    recommend,
    sampled,
    summary,
)
from training.evaluation.offline import Cascade, GateRule, open_cascade

Lists = list[tuple[str, ...]]
"""The items that each user is recommended."""


def evaluate_next(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: Annotated[Literal["valid", "test"], typer.Option(help="Where what users take is new.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="A fixed sample of so many users; 0 takes all.")] = 0,
    both: Annotated[
        bool, typer.Option("--both", help="With histories kept in the ranking, and again without them.")
    ] = False,
    online: Annotated[
        str, typer.Option(help="Also ask this router, HOST:PORT, or 'up' for the workspace's own cluster.")
    ] = "",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what users take next, of what they never took before, without a query.

    What they took before is in the ranking or left out, as the release says. With --online every user asks
    the running cluster too, and the exit code is 1 if a first page differs from that of the evaluation in one
    process.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    name = dataset or dataset_of(release.surface, folders)
    data = sources.load(name, cache_dir=cache_dir(), data_dir=data_dir, seed=0)
    asked = sampled(next_items(data, split, history_limit=release.history_limit), limit)
    if not asked:
        raise InvalidInput(FieldViolation("split", f"no user takes anything new in {split} of {data.name}"))
    cascade = open_cascade(release, folders.models_dir)
    lists = _recommended(cascade, asked)
    differing, last = 0, list(lists)[-1]
    if online:
        target = folders.running().router if online == WORKSPACE_ROUTER else online
        pages = _browsed(target, release, asked)
        differing = sum(page != here for page, here in zip(pages, lists[last], strict=True))
        lists[f"{last}, through the cluster"] = pages
    if both:
        for note, changed in ((KEPT, keeping(release)), (EXCLUDED, leaving_out(release, data))):
            lists |= _recommended(replace(cascade, release=changed), asked, f", {note}")
    figures = summary(asked, lists)
    if as_json:
        document = {"dataset": data.name, "split": split, "release": release.name, "differing": differing}
        typer.echo(json.dumps(document | {"rankings": {k: asdict(v) for k, v in figures.items()}}, indent=2))
    else:
        baselines = NEXT_BASELINES.get(data.name, ()) if split == "test" else ()
        title = f"{data.name}, {split}: {len(asked):,} users"
        Console().print(next_table(title, asked, figures, baselines))
    if differing:
        typer.echo(
            f"{differing} of {len(asked)} pages are not those of the evaluation in one process", err=True
        )
        raise typer.Exit(1)


def _gate(release: Release) -> GateRule:
    return lambda context, _: decide(release.gate, context).open


def _recommended(cascade: Cascade, asked: Sequence[NextItems], note: str = "") -> dict[str, Lists]:
    with query_progress("in one process", len(asked)) as on_user:
        found = recommend(cascade, asked, gate=_gate(cascade.release), on_user=on_user)
    return {f"{name}{note}": lists for name, lists in found.items()}


def _browsed(target: str, release: Release, asked: Sequence[NextItems]) -> Lists:
    with query_progress(f"through {target}", len(asked)) as on_user:
        contexts = [user.context for user in asked]
        options = OnlineOptions(credentials=caller_credentials())
        return asyncio.run(
            browse_online(target, release, contexts, options, page_size=DEPTH, on_page=on_user)
        )
