"""Updates the release of a workspace with what came since: a new version of its embedding."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from deploy.release_files import read_release, write_release
from deploy.training import opens, publish, refuse_existing, scratch
from deploy.workspace import Workspace
from shards.partitioning import split
from shards.release import Release
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.recipe import Recipe
from training.release_update import update_of, write_update
from training.run import Run
from training.trainer import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """How to update; an empty `version` is made from the moment."""

    tables_only: bool = False
    until_ms: int | None = None
    """The moment before which events are learned from; None: where the data's test starts, or its end."""
    seed: int = 0
    threads: int = 1
    version: str = ""


def update_release(
    recipe: Recipe, dataset: Dataset, workspace: Workspace, options: UpdateOptions, observe: Observer
) -> Release:
    """Write another version of the release's two-tower model and the release that pins it.

    The other bundles of the release stay as they are. Raises `NotFound` where there is no release,
    `InvalidInput` for one that cannot be updated, or that knows all there is.
    """
    until_ms = known_until_ms(dataset) if options.until_ms is None else options.until_ms
    update = update_of(
        recipe,
        read_release(workspace, recipe.surface),
        workspace.models_dir,
        until_ms=until_ms,
        tables_only=options.tables_only,
    )
    run = Run(
        recipe=recipe,
        dataset=dataset,
        seed=options.seed,
        threads=options.threads,
        gate=partial(opens, recipe.gate),
        observe=observe,
    )
    with scratch(workspace) as made:
        destination = Destination(
            root=made,
            prefix=recipe.surface,
            version=options.version or _version(until_ms, tables_only=options.tables_only),
            settings=update.source.manifest.settings,
            full_version=update.full_version,
        )
        model = destination.model(update.channel.name)
        refuse_existing(workspace, [model])
        release = write_update(run, update, destination)
        publish(made, workspace.models_dir, [model])
    partitions = next(channel.partitions for channel in release.channels if channel.model == model)
    if partitions > 1:
        split(workspace.models_dir, model, partitions)
    write_release(workspace, release)
    return release


def _version(until_ms: int, *, tables_only: bool) -> str:
    moment = datetime.fromtimestamp(until_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{moment}-tables" if tables_only else moment
