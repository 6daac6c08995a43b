"""`headrace catalogue`: embeds a whole catalogue by a trained two-tower model, and deploys it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
    model_version,
)
from deploy.commands.resplit import live_release, make_live, with_channel
from deploy.commands.train import showing_progress
from deploy.ray_session import ray_session
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from shards.release import ModelVersion, Release, ReleaseChannel
from training.catalogue_blocks import BLOCK_ITEMS
from training.embedded_catalogue import CatalogueJob, EmbeddedCatalogue, embed_catalogue

app = typer.Typer(no_args_is_help=True)

ModelArgument = Annotated[
    str, typer.Argument(metavar="NAME@VERSION", help="A two-tower model of the workspace, as it was trained.")
]
ItemsArgument = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="Parquet file of items: item_id and what the tower reads.")
]
PartitionsOption = Annotated[int, typer.Option(help="Bundles that hold the catalogue between them.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Ray workers; 0 works in this process.")]
RayOption = Annotated[
    str, typer.Option("--ray", help="HOST:PORT of a Ray whose nodes share the workspace; default: its own.")
]
VersionOption = Annotated[
    str, typer.Option("--as", help="Version to write; default: made from the model's and the items.")
]
BlockOption = Annotated[int, typer.Option(min=1, help="Items that are embedded, and lost, together.")]


@app.callback()
def catalogue() -> None:
    """Embed a whole catalogue by a trained model, and deploy it."""


@app.command("embed")
def embed(
    model: ModelArgument,
    items: ItemsArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    partitions: PartitionsOption = 1,
    workers: WorkersOption = 2,
    ray: RayOption = "",
    version: VersionOption = "",
    block_items: BlockOption = BLOCK_ITEMS,
    as_json: JsonOption = False,
) -> None:
    """Write a model's bundles over another catalogue; what is there of an earlier run is kept."""
    job = _job(model, items, workspace, partitions, workers, version, block_items)
    _show(_embedded(job, ray), as_json=as_json)


@app.command("deploy")
def deploy(
    model: ModelArgument,
    items: ItemsArgument,
    surface: Annotated[str, typer.Option(help="The surface whose live release shall use the catalogue.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    partitions: PartitionsOption = 1,
    workers: WorkersOption = 2,
    ray: RayOption = "",
    version: VersionOption = "",
    block_items: BlockOption = BLOCK_ITEMS,
    as_json: JsonOption = False,
) -> None:
    """Embed a catalogue and have the live release use it, without losing a search.

    The release before answers until the new bundles are ready everywhere. New items are added in the same
    way: give the catalogue with them, and blocks that did not change are not embedded again.
    """
    address = controller_address(controller, workspace)
    live = live_release(address, surface)
    job = _job(model, items, workspace, partitions, workers, version, block_items)
    _channel(live, job.source)
    made = _embedded(job, ray)
    _show(made, as_json=as_json)
    wanted = release_with(live, made.model, partitions)
    if wanted != live:
        make_live(wanted, address, workspace, own=not controller, as_json=as_json)


def release_with(live: Release, model: ModelVersion, partitions: int) -> Release:
    """Return the release with the channel of a model at this version of it, under a version that says so."""
    before = _channel(live, model)
    changed = replace(before, model=model, partitions=partitions)
    version = live.version.removesuffix(_suffix(before)) + _suffix(changed)
    return replace(with_channel(live, changed), version=version)


def _suffix(channel: ReleaseChannel) -> str:
    return f".{channel.model.version}-{channel.partitions}"


def _channel(live: Release, model: ModelVersion) -> ReleaseChannel:
    found = next((channel for channel in live.channels if channel.model.model == model.model), None)
    if found is None:
        names = ", ".join(channel.model.model for channel in live.channels)
        problem = f"{model.model!r} is the model of no channel of {live.name}: {names}"
        raise InvalidInput(FieldViolation("model", problem))
    return found


def _job(
    model: str, items: Path, workspace: Path, partitions: int, workers: int, version: str, block_items: int
) -> CatalogueJob:
    folders, named = Workspace(workspace), model_version(model)
    source = ModelVersion(named.model, named.version)
    return CatalogueJob(
        source=source,
        items=items.absolute(),
        models_dir=folders.models_dir.absolute(),
        folder=(folders.catalogue_dir / str(source)).absolute(),
        partitions=partitions,
        version=version,
        block_items=block_items,
        workers=workers,
    )


def _embedded(job: CatalogueJob, ray: str) -> EmbeddedCatalogue:
    with ray_session(ray, job.workers), showing_progress(Console(stderr=True)) as observe:
        return embed_catalogue(job, observe=observe)


def _show(made: EmbeddedCatalogue, *, as_json: bool) -> None:
    if as_json:
        document = asdict(made) | {"model": str(made.model), "bundles": [str(b) for b in made.bundles]}
        typer.echo(json.dumps(document))
        return
    typer.echo("\n".join(map(str, made.bundles)))
    typer.echo(
        f"{made.items} items in {made.blocks} blocks, {made.blocks_embedded} of them embedded now; "
        f"{made.bundles_written} of {len(made.bundles)} bundles written now",
        err=True,
    )
