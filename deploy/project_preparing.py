"""What comes before a project's cluster: settings, a first training, and a word about what has changed."""

from collections.abc import Callable, Set
from dataclasses import replace

from deploy.project import Project
from deploy.project_training import changes_since_training
from deploy.release_files import read_release, surfaces
from deploy.settings import ClusterSettings
from deploy.steps_apart import evaluate_apart, train_apart
from shards.errors import FieldViolation, InvalidInput

_MOST_TOLD = 8


def with_project(settings: ClusterSettings, project: Project, named: Set[str]) -> ClusterSettings:
    """Return the settings with those of the project's file wherever the command line says nothing.

    `named` are the options that were given. Raises `InvalidInput` for settings that contradict each other.
    """
    told, usual = project.cluster_settings(), ClusterSettings(workspace=settings.workspace)
    given = {n for name in named for n in (name, f"{name}s", f"{name}_path", f"{name}_address")}
    kept = {
        name: value
        for name, value in told.items()
        if name not in given and getattr(settings, name) == getattr(usual, name)
    }
    try:
        return replace(settings, **kept)
    except ValueError as error:
        raise InvalidInput(FieldViolation(f"{project.path}: cluster", str(error))) from error


def prepare(project: Project, say: Callable[[str], None]) -> None:
    """Train and evaluate a project of which nothing is trained, or say what has changed since it was.

    Raises `Conflict` where its cluster runs, before anything else, and `InvalidInput` for a file that could
    not be trained by.
    """
    folders = project.workspace
    with folders.claim():
        if project.surface not in surfaces(folders):
            say(f"Training {project.surface}; the first time this takes some minutes …")
            train_apart("--project", str(project.folder))
            say(f"Evaluating {project.surface} on held-out queries …")
            evaluate_apart("--project", str(project.folder), "--surface", project.surface)
            return
    if changed := changes_since_training(project):
        _check(project)
        release = read_release(folders, project.surface).version
        say(f"Since {project.surface} {release} was trained, {len(changed)} things have changed:")
        for change in changed[:_MOST_TOLD]:
            say(f"  {change}")
        say(f"It serves as it was trained; `headrace train --project {project.folder}` trains anew.")


def _check(project: Project) -> None:
    # It takes the training's modules, which a start that finds nothing changed does not wait for.
    from deploy.project_recipe import project_recipe

    project_recipe(project)
