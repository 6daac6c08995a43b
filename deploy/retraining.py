"""Retrains what is due of a workspace's GLMix, and releases it where it is no worse than what is live.

The new bundle appears whole or not at all, and only then does the release name it: a run that is killed
leaves the release as it was. What was decided is kept in `retraining/<surface>.jsonl`, a line each.
"""

import json
import os
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from deploy.release_files import read_release, write_release
from deploy.training import opens, publish, refuse_existing, scratch
from deploy.workspace import Workspace
from shards.bundle import Bundle, open_bundle, read_manifest
from shards.errors import BundleError, FieldViolation, InvalidInput, Refused
from shards.json_codec import from_json
from shards.release import ModelVersion, Release
from training.channels import Destination
from training.datasets.tables import Dataset
from training.glmix_bundle import write_glmix
from training.glmix_training import Retrained, retrain_glmix
from training.overrides import with_overrides
from training.ranker_bundles import RANKER
from training.recipe import Recipe
from training.retraining_schedule import Fitted, Kind, Schedule, due, verdict
from training.run import Run
from training.trainer import Observer, PhaseStarted

WORSE = "WORSE_RELEASE"
"""The reason of what is refused for its quality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingOptions:
    """How to retrain once."""

    now_ms: int
    """Learn from what came before this moment; it is also by what something is due."""
    override_reason: str = ""
    """Why effects that foretell worse than the live ones are released all the same."""
    version: str = ""
    """Empty for one made from the moment."""
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """Nothing was released, and why."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """What was released."""

    kind: Kind
    release: Release
    retrained: Retrained


def read_schedule(path: Path) -> Schedule:
    """Return the schedule in a TOML file; raises InvalidInput naming the file and the field at fault."""
    try:
        return from_json(Schedule, tomllib.loads(path.read_text(encoding="utf-8")), "schedule")
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except ValueError as error:
        raise InvalidInput(FieldViolation(str(path), str(error))) from error


def retrain_due(
    schedule: Schedule,
    recipe: Recipe,
    dataset: Dataset,
    workspace: Workspace,
    options: RetrainingOptions,
    observe: Observer,
) -> Retraining | NotYet:
    """Fit what is due, beginning with the release's effects, and make the workspace's release name it.

    Raises NotFound where there is no release, InvalidInput for one without a GLMix or that knows what comes
    after the moment, and Refused where the new effects foretell the newest labels worse and nobody says why.
    """
    release = read_release(workspace, recipe.surface)
    source = _source(release, workspace)
    fitted = _fitted(source, workspace)
    if options.now_ms < fitted.random_ms:
        raise InvalidInput(FieldViolation("until", f"is before the moment that {release.name} knows"))
    kind = due(schedule, fitted, options.now_ms)
    if isinstance(kind, int):
        return NotYet(why=f"nothing is due before {_moment(kind):%Y-%m-%dT%H:%M} UTC")
    run = Run(
        recipe=with_overrides(recipe, (*source.manifest.settings, *schedule.settings())),
        dataset=dataset,
        seed=0,
        threads=options.threads,
        gate=partial(opens, recipe.gate),
        observe=observe,
    )
    return _retrain(run, schedule, kind, release, source, workspace, options)


def _retrain(
    run: Run,
    schedule: Schedule,
    kind: Kind,
    release: Release,
    source: Bundle,
    workspace: Workspace,
    options: RetrainingOptions,
) -> Retraining | NotYet:
    fixed, quality = kind == "all effects", schedule.quality
    with scratch(workspace) as made:
        destination = Destination(
            root=made,
            prefix=run.recipe.surface,
            version=options.version or _version(options.now_ms, fixed=fixed),
            full_version="" if fixed else (source.manifest.full_version or source.manifest.version),
        )
        model = destination.model(RANKER)
        refuse_existing(workspace, [model])
        known = run.snapshot(options.now_ms)
        found = retrain_glmix(
            run, source, known, fixed=fixed, held_out=quality.held_out, least_labels=quality.least_labels
        )
        if isinstance(found, int):
            needed = (
                f"{found} labels became known since {release.name}, and {quality.least_labels} are needed"
            )
            return NotYet(why=needed)
        compared = quality.compared(found, release.version)
        journal = _Journal(workspace, release, model, kind, options)
        if compared.worse and not options.override_reason:
            journal.add("refused", found)
            raise Refused(
                f"{model} foretells worse than {release.name}: {verdict(found)}; "
                "--override-reason releases it nevertheless",
                reason=WORSE,
            )
        run.observe(PhaseStarted(phase="writing the ranker"))
        write_glmix(found.trained, known, run.browsing(known).contexts, destination)
        publish(made, workspace.models_dir, [model])
    if compared.worse:
        compared = replace(compared, override_reason=options.override_reason)
    fresh = replace(_released(release, model, options.now_ms), quality=compared)
    write_release(workspace, fresh)
    journal.add("overridden" if compared.worse else "released", found)
    return Retraining(kind=kind, release=fresh, retrained=found)


def _source(release: Release, workspace: Workspace) -> Bundle:
    if release.ranker is None:
        raise InvalidInput(FieldViolation("release", f"{release.name} has no ranker"))
    pinned = release.ranker.model
    return open_bundle(workspace.models_dir / pinned.model / pinned.version, expect=pinned)


def _fitted(source: Bundle, workspace: Workspace) -> Fitted:
    """Return until when effects were fitted; the fixed one's bundle may be gone, and then nobody knows."""
    manifest = source.manifest
    if manifest.training_range is None:
        raise InvalidInput(FieldViolation("release", f"{manifest.model_version} does not say what it knows"))
    fixed_ms: int | None = manifest.training_range.end_ms
    if manifest.full_version:
        try:
            full = read_manifest(workspace.models_dir / manifest.name / manifest.full_version)
            fixed_ms = full.training_range.end_ms if full.training_range else None
        except BundleError:
            fixed_ms = None
    return Fitted(random_ms=manifest.training_range.end_ms, fixed_ms=fixed_ms)


def _released(release: Release, model: ModelVersion, now_ms: int) -> Release:
    """Return the release with this version of its ranker, under the version's name."""
    assert release.ranker is not None, "its bundle was opened"
    return replace(
        release,
        version=model.version,
        ranker=replace(release.ranker, model=model),
        as_of_ms=None if release.as_of_ms is None else now_ms,
    )


@dataclass(frozen=True, slots=True)
class _Journal:
    """Where decisions about a surface's release are kept."""

    workspace: Workspace
    live: Release
    model: ModelVersion
    kind: Kind
    options: RetrainingOptions

    def add(self, decision: str, found: Retrained) -> None:
        """Append a decision, and bring it to the disk."""
        line = {
            "decided": datetime.now(UTC).isoformat(timespec="seconds"),
            "until": _moment(self.options.now_ms).isoformat(timespec="seconds"),
            "decision": decision,
            "kind": self.kind,
            "model": str(self.model),
            "live": self.live.name,
            "figures": verdict(found),
            "override_reason": self.options.override_reason,
        }
        path = self.workspace.retraining_dir / f"{self.live.surface}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _version(now_ms: int, *, fixed: bool) -> str:
    moment = _moment(now_ms).strftime("%Y%m%dT%H%M%S")
    return moment if fixed else f"{moment}-effects"
