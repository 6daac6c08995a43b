"""Brings a workspace's release up to a later moment: bundles and release appear together or not at all."""

import hashlib
from functools import partial

from deploy.release_files import read_release, write_release
from deploy.training import opens, publish, refuse_existing, scratch
from deploy.workspace import Workspace
from shards.bundle import read_manifest
from shards.errors import FieldViolation, InvalidInput
from shards.release import Release
from training.channels import Destination
from training.datasets.digest import digest_of
from training.datasets.tables import Dataset, timestamps_ms
from training.overrides import with_overrides
from training.recipe import Recipe
from training.refreshing import refresh
from training.release_writing import models_of
from training.run import Run
from training.snapshot import snapshot
from training.trainer import Observer, PhaseStarted, ignore


def refresh_release(
    recipe: Recipe,
    dataset: Dataset,
    workspace: Workspace,
    now_ms: int | None,
    version: str,
    observe: Observer,
) -> Release:
    """Write the recipe's release of the workspace as of `now_ms`; None: of the newest event.

    The recipe's settings are those that the release was trained with. Raises `InvalidInput` where the moment
    is before the release's own or a bundle of the version exists, and what `training.refreshing.refresh`
    raises.
    """
    release = read_release(workspace, recipe.surface)
    if now_ms is None:
        now_ms = int(timestamps_ms(dataset.events).max(initial=0)) + 1
    if release.as_of_ms is not None and now_ms < release.as_of_ms:
        raise InvalidInput(FieldViolation("until", "is before the moment that the release knows"))
    run = run_of(recipe, dataset, release, workspace, observe)
    with scratch(workspace) as made:
        destination = Destination(
            root=made,
            prefix=recipe.surface,
            version=version or _version_of(release, digest_of(dataset), now_ms),
            settings=_settings_of(release, workspace),
        )
        refuse_existing(workspace, models_of(run.recipe, destination))
        observe(PhaseStarted(phase="writing bundles"))
        known = snapshot(dataset, now_ms)
        refreshed = refresh(run, release, workspace.models_dir, known, destination)
        publish(made, workspace.models_dir, refreshed.models().keys() - release.models().keys())
    write_release(workspace, refreshed)
    return refreshed


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
