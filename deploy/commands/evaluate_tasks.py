"""`headrace eval-tasks`: what the ranker says of each of its tasks, beside what then happened."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    DataDirOption,
    DatasetOption,
    JsonOption,
    LimitOption,
    QuerySeedOption,
    SurfaceOption,
    WorkspaceOption,
)
from deploy.folders import cache_dir
from deploy.gate_rule import gate_rule
from deploy.known_recipes import dataset_of, recipe_of
from deploy.progress import query_progress
from deploy.release_files import only_surface, read_release
from deploy.task_report import TaskReport, as_document, draw, render
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from training.datasets import sources
from training.evaluation.offline import open_cascade
from training.evaluation.tasks import figures_of, held_out, predicted


def evaluate_tasks(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: Annotated[Literal["valid", "test"], typer.Option(help="Whose queries are asked.")] = "test",
    limit: LimitOption = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a report: tasks.json, tasks.txt, tasks.png.")
    ] = None,
    data_dir: DataDirOption = None,
    seed: QuerySeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure AUC, calibration and errors of each task of the ranker on held-out queries.

    Labels are as the recipe declares them; windows close with the data.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    if release.ranker is None:
        raise InvalidInput(FieldViolation("surface", f"{release.surface!r} has no ranker"))
    tasks = recipe_of(release.surface, folders).tasks
    name = dataset or dataset_of(release.surface, folders)
    data = sources.load(name, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    cascade = open_cascade(release, folders.models_dir)
    asked = held_out(data, split, limit=limit, history_limit=release.history_limit)
    with query_progress("in one process", len(asked)) as on_query:
        found = predicted(
            cascade,
            data,
            asked,
            tasks,
            gate=gate_rule(release, folders.models_dir),
            on_query=on_query,
        )
    report = TaskReport(
        dataset=data.name,
        split=split,
        release=release.name,
        requests=len(asked),
        queries_are_proxies=data.queries_are_proxies,
        figures=figures_of(tasks, found),
    )
    document = json.dumps(as_document(report), indent=2, allow_nan=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(report, out / "tasks.png")
        (out / "tasks.json").write_text(document + "\n")
        with (out / "tasks.txt").open("w") as file:
            Console(file=file, width=110).print(render(report))
    if as_json:
        typer.echo(document)
    else:
        Console().print(render(report))
