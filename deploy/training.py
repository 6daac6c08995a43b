"""Trains a recipe into a workspace: bundles, release and users appear together or not at all."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.gate_rule import gate_rule
from deploy.release_files import write_release
from deploy.user_loading import load_users
from deploy.workspace import Workspace
from router.gate import decide
from shards.candidates import Candidates
from shards.errors import FieldViolation, InvalidInput
from shards.release import GateRules, ModelVersion, Release
from shards.search_context import SearchContext
from training.channels import Destination
from training.checkpoints import Checkpoints
from training.datasets.digest import digest_of
from training.datasets.tables import Dataset
from training.metrics_file import metrics_file
from training.phase_times import PhaseTimes
from training.pipeline import Trained, train
from training.recipe import Recipe, version_of
from training.reference_writing import reference_searches, write_references
from training.release_writing import models_of
from training.run import Run
from training.trainer import Observer, PhaseStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to run a recipe; an empty `version` is made from the recipe, the data and the seed."""

    seed: int = 0
    threads: int = 1
    version: str = ""
    replace: bool = False
    """Whether bundles of the same version are written again instead of refused."""
    settings: tuple[str, ...] = ()
    """What was set in place of the recipe's own settings, for the manifests to say."""
    workers: int = 0
    """Ray workers that train together; 0 trains in this process."""
    ray: str = ""
    """HOST:PORT of the Ray whose workers they are; empty for one of this process's own."""
    resume: bool = False
    """Whether a run that was broken off goes on, instead of beginning again."""


def train_release(
    recipe: Recipe, dataset: Dataset, workspace: Workspace, options: TrainingOptions, observe: Observer
) -> Trained:
    """Train every model of the recipe and put bundles, users and release into the workspace.

    Raises `InvalidInput`, before training, where the version exists and `replace` is not set.
    """
    made_of = version_of(recipe, digest_of(dataset), options.seed)
    version = options.version or made_of
    folder = workspace.training_dir / f"{recipe.name}-{made_of}-{options.threads}"
    checkpoints = Checkpoints(folder=folder)
    if not options.resume:
        checkpoints.clear()
    with scratch(workspace) as made:
        destination = Destination(
            root=made, prefix=recipe.surface, version=version, settings=options.settings
        )
        models = models_of(recipe, destination)
        if not options.replace:
            refuse_existing(workspace, models)
        metrics = metrics_file(folder / "metrics.csv", goes_on=options.resume, beside=observe)
        phases = PhaseTimes(folder / "phases.csv", metrics)
        run = Run(
            recipe=recipe,
            dataset=dataset,
            seed=options.seed,
            threads=options.threads,
            gate=partial(opens, recipe.gate),
            observe=phases,
            checkpoints=checkpoints,
        )
        trained = _train(run, destination, options)
        _note_references(run, trained.release, destination)
        publish(destination.root, workspace.models_dir, models)
    phases(PhaseStarted(phase="filling the user store"))
    load_users(dataset, workspace.users_path)
    write_release(workspace, trained.release)
    phases.end()
    checkpoints.clear()
    return trained


def _note_references(run: Run, release: Release, destination: Destination) -> None:
    run.observe(PhaseStarted(phase="answering reference searches"))
    limit = run.recipe.history_limit
    searches = reference_searches(run.dataset, history_limit=limit, seed=run.seed)
    write_references(release, destination.root, searches, gate_rule(release, destination.root))


def _train(run: Run, destination: Destination, options: TrainingOptions) -> Trained:
    if not options.workers:
        return train(run, destination)
    # It takes pandas and starts a Ray.
    from deploy.ray_session import ray_session
    from training.ray_training import train_together

    with ray_session(options.ray, options.workers):
        return train_together(run, destination, options.workers)


@contextmanager
def scratch(workspace: Workspace) -> Iterator[Path]:
    """Yield a folder beside the workspace's bundles, for those that are being made."""
    workspace.models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.models_dir, prefix=".training-") as made:
        yield Path(made)


def tuned_folder(workspace: Workspace, recipe: str, dataset_digest: str) -> Path:
    """Return the folder of what `headrace tune recipe` tried of a recipe on a data set."""
    return workspace.tuning_dir(f"{recipe}-{dataset_digest[:10]}")


def opens(rules: GateRules, context: SearchContext, _retrieved: Mapping[str, Candidates]) -> bool:
    """Return whether the rules alone open the gate."""
    return decide(rules, context).open


def refuse_existing(workspace: Workspace, models: Iterable[ModelVersion]) -> None:
    """Raise `InvalidInput` where one of the bundles is in the workspace."""
    for model in models:
        if (workspace.models_dir / model.model / model.version).exists():
            problem = f"{model} is in {workspace.models_dir} already; name another or replace it"
            raise InvalidInput(FieldViolation("version", problem))


def publish(made: Path, models_dir: Path, models: Iterable[ModelVersion]) -> None:
    """Move bundles that were made into the folder of models, in place of those of the same version."""
    for model in models:
        target = models_dir / model.model / model.version
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        (made / model.model / model.version).rename(target)
