"""What `headrace doctor` looks at of a workspace and its project: file, data, bundles and releases."""

from collections.abc import Iterator

from deploy.checkup import Finding, broken, note, ok
from deploy.project import Project
from deploy.project_training import changes_since_training
from deploy.release_files import read_release, surfaces
from deploy.workspace import Workspace
from shards.bundle import open_bundle
from shards.errors import BundleError, InvalidInput
from shards.release import ModelVersion, Release

_TRAIN_AGAIN = "`headrace train` makes it anew; docs/operations.md has what to do for a live one"


def project_file(project: Project | None) -> Iterator[Finding]:
    """Look whether what the project's file says can be trained."""
    if project is None:
        yield ok("project", "none: the workspace stands alone")
        return
    # These modules take torch, which what else is looked at does without.
    from deploy.project_recipe import project_recipe

    recipe = project_recipe(project)
    yield ok("project", f"{project.path}: {recipe.surface}, {len(recipe.channels)} channels")


def data(project: Project | None) -> Iterator[Finding]:
    """Look at every row of the project's tables."""
    if project is None:
        return
    from deploy.project_recipe import check_columns, project_recipe
    from training.datasets import parquet

    found = parquet.load(project.data_dir)
    try:
        recipe = project_recipe(project)
    except InvalidInput:
        recipe = None  # Which is told of the project's file.
    if recipe:
        check_columns(project, recipe, found)
    counts = ", ".join(f"{len(table):,} {name}" for name, table in found.tables().items())
    proxies = "; queries are proxies" if found.queries_are_proxies else ""
    yield ok("data", f"{counts}{proxies}")


def releases(folders: Workspace, project: Project | None) -> Iterator[Finding]:
    """Look at every release of the workspace and every byte of its bundles."""
    found = surfaces(folders)
    if not found:
        advice = "`headrace up` trains" if project else "`headrace train RECIPE` makes one"
        yield note("release", f"{folders.root} has none yet", advice)
    for surface in found:
        release = read_release(folders, surface)
        problems = list(_bundle_problems(folders, release))
        yield from problems
        if not problems:
            yield ok("release", f"{release.name}: {len(_models(release))} bundles, checksums right")
    if project and project.surface in found and (changes := changes_since_training(project)):
        advice = f"`headrace train --project {project.folder}` trains by them"
        found_changed = f"{len(changes)} changes since {project.surface} was trained: {changes[0]}"
        yield note("release", found_changed, advice)


def bundle_bytes(folders: Workspace) -> int:
    """Return the size of all bundles of the workspace's releases on the disk."""
    models = {m for surface in surfaces(folders) for m in _models(read_release(folders, surface))}
    paths = (folders.models_dir / m.model / m.version for m in models)
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())


def _models(release: Release) -> list[ModelVersion]:
    """Return every bundle of a release, that of its gate included."""
    return [*release.models(), *([release.gate.model] if release.gate.model else [])]


def _bundle_problems(folders: Workspace, release: Release) -> Iterator[Finding]:
    for model in _models(release):
        path = folders.models_dir / model.model / model.version
        if not path.is_dir():
            yield broken("bundles", f"{model} is not in {folders.models_dir}", _TRAIN_AGAIN)
            continue
        try:
            open_bundle(path, model)
        except BundleError as error:
            yield broken("bundles", f"{model}: {error}", _TRAIN_AGAIN)
