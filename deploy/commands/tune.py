"""`headrace tune`: settings that are searched for rather than trained."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    DataDirOption,
    JsonOption,
    WorkspaceOption,
    model_version,
)
from deploy.commands.train import showing_progress
from deploy.folders import cache_dir
from deploy.known_recipes import dataset_named, recipe_named
from deploy.training import tuned_folder
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from shards.release import ModelVersion
from training.ann_tuning import AnnTarget, AnnTuner, Measured, Queries, factories_for
from training.datasets import sources
from training.datasets.digest import digest_of
from training.evaluation.judgements import judged_queries
from training.overrides import with_overrides
from training.recipe_tuning import RecipeTuner, Tried
from training.tuned_bundle import open_tunable, write_tuned

app = typer.Typer(help="Search for settings.", no_args_is_help=True)


@app.callback()
def tune() -> None:
    """Search for settings of recipes, and of indexes that are trained already."""


@app.command("ann")
def ann(
    model: Annotated[str, typer.Argument(help="NAME@VERSION of a two-tower model of the workspace.")],
    dataset: Annotated[
        str,
        typer.Option(help="Whose queries to ask: movielens, online_retail or a folder of Parquet tables."),
    ],
    save: Annotated[
        str, typer.Option("--as", help="Version to write; default: the model's with -ann behind it.")
    ] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    k: Annotated[int, typer.Option(min=1, help="Recall is measured among so many.")] = 100,
    recall: Annotated[float, typer.Option(help="Share of the exact neighbours to find.")] = 0.99,
    p99_ms: Annotated[float, typer.Option(help="Processor time of one search of the index.")] = 5.0,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, those of earlier runs included.")] = 60,
    queries: Annotated[int, typer.Option(min=2, help="Half to compare settings, half to tell by.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of what is tried, and of the data set's queries.")] = 0,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose a model's index and how far its searches look, and write it as another version.

    The fastest setting is taken whose recall and p99 are good enough. A run that was broken off goes on.
    """
    folders = Workspace(workspace)
    named = model_version(model)
    source = ModelVersion(named.model, named.version)
    tunable = open_tunable(folders.models_dir, source)
    data = sources.load(dataset, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    judged = judged_queries(data, "valid", limit=queries, history_limit=200)
    vectors = tunable.queries([query.context for query in judged])
    if len(vectors) < 2:
        raise InvalidInput(FieldViolation("dataset", "has no two queries in its split valid"))
    console = Console(stderr=True)
    tuner = AnnTuner(
        vector_ND=tunable.vector_ND,
        queries=Queries(compared_QD=vectors[::2], held_out_QD=vectors[1::2]),
        target=_target(k, recall, p99_ms),
        factories=factories_for(*tunable.vector_ND.shape),
        folder=folders.tuning_dir(f"{source.model}@{source.version}-k{k}"),
        seed=seed,
        on_trial=lambda tried: console.print(_line(tried), highlight=False),
    )
    tuned = tuner.tune(trials)
    written = write_tuned(folders.models_dir, tunable, save or f"{source.version}-ann", tuned)
    _show(written, tuned.choice, tuned.tried, as_json=as_json)


@app.command("recipe")
def recipe(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that declares a search space.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dataset: Annotated[
        str, typer.Option(help="A dataset's name or a folder of Parquet tables; default: the recipe's.")
    ] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of every trial, say two_tower.fit.epochs=3; repeatable."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, those of earlier runs included.")] = 20,
    seed: Annotated[int, typer.Option(help="Of what is tried, and of training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose a recipe's settings by a figure on held-out queries; `headrace train RECIPE --tuned` uses them.

    Trials that fall behind are given up. A run that was broken off goes on.
    """
    folders = Workspace(workspace)
    chosen = with_overrides(recipe_named(name, folders), overrides or ())
    source = dataset_named(dataset, chosen, folders)
    data = sources.load(source, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    console, digest = Console(stderr=True), digest_of(data)
    with showing_progress(console) as observe:
        best = RecipeTuner(
            recipe=chosen,
            dataset=data,
            dataset_digest=digest,
            folder=tuned_folder(folders, chosen.name, digest),
            seed=seed,
            threads=threads,
            fixed=tuple(overrides or ()),
            observe=observe,
            on_trial=lambda tried: console.print(_trial_line(tried), highlight=False),
        ).tune(trials)
    if as_json:
        typer.echo(json.dumps(asdict(best)))
        return
    typer.echo("\n".join(best.settings))
    typer.echo(f"{best.metric} {best.value:.4f}, the best of {best.trials} trials", err=True)


def _trial_line(tried: Tried) -> str:
    value = f"{tried.value:.4f}" if tried.value == tried.value else "given up"
    return f"trial {tried.number:>3}  {value:<8}  {' '.join(tried.settings)}"


def _target(k: int, recall: float, p99_ms: float) -> AnnTarget:
    try:
        return AnnTarget(k=k, recall=recall, p99_ms=p99_ms)
    except ValueError as error:
        raise InvalidInput(FieldViolation("recall", str(error))) from error


def _show(written: ModelVersion, choice: Measured, tried: tuple[Measured, ...], *, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"model": str(written), "choice": asdict(choice)}
        typer.echo(json.dumps(document | {"tried": [asdict(one) for one in tried]}, indent=2))
        return
    table = Table("index", "knobs", "recall", "median ms", "p99 ms")
    for one in sorted(tried, key=lambda measured: measured.median_ms):
        table.add_row(
            one.factory, _knobs(one), f"{one.recall:.4f}", f"{one.median_ms:.3f}", f"{one.p99_ms:.3f}"
        )
    Console(stderr=True).print(table)
    typer.echo(f"{written}: {_line(choice)} on queries held out")


def _line(one: Measured) -> str:
    return (
        f"{one.factory:<24} {_knobs(one):<24} recall {one.recall:.4f}  "
        f"{one.median_ms:.3f} ms, p99 {one.p99_ms:.3f}"
    )


def _knobs(one: Measured) -> str:
    return " ".join(f"{name}={value:.3g}" for name, value in asdict(one.knobs).items() if value)
