"""Brings a workspace's release up to a later moment: its bundles appear together or not at all."""

import hashlib
from functools import partial

from deploy.training import opens, publish, refuse_existing, scratch
from deploy.workspace import Workspace
from shards.bundle import read_manifest
from shards.errors import FieldViolation, InvalidInput
from shards.release import Release
from training.channels import Destination
from training.datasets.digest import digest_of
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.recipe import Recipe
from training.refreshing import named, refresh
from training.run import Run
from training.trainer import Observer, PhaseStarted, ignore


def refresh_release(
    run: Run, release: Release, workspace: Workspace, now_ms: int, *, version: str = ""
) -> Release:
    """Write the release's bundles as of `now_ms` into the workspace and return the release that names them.

    Without a `version` one is made from the release, the data and the moment; where its bundles are there
    already they are used. Raises `InvalidInput` where the moment is before the release's own or a bundle of a
    named version exists, and what `training.refreshing.refresh` raises.
    """
    if release.as_of_ms is not None and now_ms < release.as_of_ms:
        raise InvalidInput(FieldViolation("until", "is before the moment that the release knows"))
    with scratch(workspace) as made:
        destination = Destination(
            root=made,
            prefix=run.recipe.surface,
            version=version or _version_of(release, digest_of(run.dataset), now_ms),
            settings=_settings_of(release, workspace),
        )
        wanted = named(release, destination, now_ms)
        fresh = wanted.models().keys() - release.models().keys()
        if version:
            refuse_existing(workspace, fresh)
        elif all((workspace.models_dir / model.model / model.version).exists() for model in fresh):
            return wanted
        run.observe(PhaseStarted(phase="writing bundles"))
        refresh(run, release, workspace.models_dir, run.snapshot(now_ms), destination)
        publish(made, workspace.models_dir, fresh)
    return wanted


def run_of(
    recipe: Recipe, dataset: Dataset, release: Release, workspace: Workspace, observe: Observer = ignore
) -> Run:
    """Return what makes a release's tables again: its recipe, with the settings it was trained with."""
    return Run(
        recipe=with_overrides(recipe, _settings_of(release, workspace)),
        dataset=dataset,
        seed=0,
        gate=partial(opens, recipe.gate),
        observe=observe,
    )


def _settings_of(release: Release, workspace: Workspace) -> tuple[str, ...]:
    """Return what was set in place of the recipe's own settings when the release was trained."""
    model = release.channels[0].bundles()[0]
    return read_manifest(workspace.models_dir / model.model / model.version).settings


def _version_of(release: Release, dataset_digest: str, now_ms: int) -> str:
    """Return a short name that depends on what is refreshed, the data and the moment alone."""
    return hashlib.sha256(f"{release.name}:{dataset_digest}:{now_ms}".encode()).hexdigest()[:10]
