"""`headrace retrain`: the effects of a released GLMix, fitted anew when a schedule says so."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    DataDirOption,
    WorkspaceOption,
    controller_address,
)
from deploy.commands.resplit import live_release, make_live
from deploy.commands.train import ThreadsOption, showing_progress
from deploy.folders import cache_dir
from deploy.known_recipes import dataset_named, recipe_named
from deploy.moments import told_moment_ms
from deploy.release_files import read_release
from deploy.retraining import WORSE, NotYet, RetrainingOptions, read_schedule, retrain_due
from deploy.workspace import Workspace
from shards.errors import FieldViolation, HeadraceError, InvalidInput, Refused
from training.datasets import sources
from training.datasets.tables import Dataset, timestamps_ms
from training.retraining_schedule import Schedule, verdict


def retrain(
    schedule: Annotated[Path, typer.Argument(help="A schedule in TOML; see docs/operations.md.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    until: Annotated[
        str,
        typer.Option(
            help="Learn from what came before this moment, ISO 8601; default: after the newest event."
        ),
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: read the data again and do what is due, until Ctrl-C.")
    ] = False,
    override_reason: Annotated[
        str,
        typer.Option(
            "--override-reason",
            help="Release effects that foretell worse than the live ones, and keep why in the journal.",
        ),
    ] = "",
    version: Annotated[str, typer.Option(help="Version to write; default: made from the moment.")] = "",
    threads: ThreadsOption = 1,
    controller: ControllerOption = "",
    data_dir: DataDirOption = None,
) -> None:
    """Fit the effects that are due, check them on the newest labels, and release them if they are no worse.

    The random effects of users and items are due every few hours, all effects every few days.
    """
    if watch and (until or version or override_reason):
        problem = "is for a retraining by hand; --watch goes by the data and the schedule"
        raise InvalidInput(FieldViolation("until, version or override-reason", problem))
    wanted, told_ms = read_schedule(schedule), told_moment_ms(until, "until") if until else None
    once = _Once(wanted, workspace, controller, data_dir)
    if watch:
        _watch(once, wanted, threads)
        return
    data = once.data()
    now_ms = _newest_ms(data) if told_ms is None else told_ms
    once.run(
        data,
        RetrainingOptions(now_ms=now_ms, override_reason=override_reason, version=version, threads=threads),
    )


class _Once:
    """One look at what is due."""

    def __init__(self, schedule: Schedule, workspace: Path, controller: str, data_dir: Path | None) -> None:
        self._schedule, self._recipe = schedule, recipe_named(schedule.recipe, Workspace(workspace))
        self._workspace, self._controller, self._data_dir = workspace, controller, data_dir
        self._console = Console(stderr=True)
        self._told = ""

    def data(self) -> Dataset:
        """Return the data as it is now."""
        name = dataset_named(self._schedule.dataset, self._recipe, Workspace(self._workspace))
        return sources.load(name, cache_dir=cache_dir(), data_dir=self._data_dir)

    def run(self, data: Dataset, options: RetrainingOptions) -> None:
        """Do what is due, say what came of it, and have the cluster answer with the workspace's release."""
        folders = Workspace(self._workspace)
        with showing_progress(self._console) as observe:
            found = retrain_due(self._schedule, self._recipe, data, folders, options, observe)
        if isinstance(found, NotYet):
            self.tell(f"Nothing was retrained: {found.why}.")
        else:
            self.tell(f"Fitted {found.kind}: {verdict(found.retrained)}.")
            typer.echo(f"{found.release.surface} {found.release.version}")
        if self._schedule.deploy:
            self._deploy(folders)

    def _deploy(self, folders: Workspace) -> None:
        address = controller_address(self._controller, self._workspace)
        release = read_release(folders, self._recipe.surface)
        if live_release(address, release.surface).version != release.version:
            make_live(release, address, self._workspace, own=not self._controller)

    def tell(self, line: str) -> None:
        """Write a line for the reader, once where it would follow itself."""
        if line != self._told:
            self._console.print(line, highlight=False, soft_wrap=True)
        self._told = line


def _watch(once: _Once, schedule: Schedule, threads: int) -> None:
    """Look again and again; effects that were refused are fitted again when new ones would be due."""
    not_before_ms = 0
    while True:
        try:
            data = once.data()
            now_ms = _newest_ms(data)
            if now_ms >= not_before_ms:
                once.run(data, RetrainingOptions(now_ms=now_ms, threads=threads))
        except HeadraceError as error:
            once.tell(str(error))
            if isinstance(error, Refused) and error.reason == WORSE:
                not_before_ms = now_ms + schedule.every_ms
        time.sleep(schedule.check_every_s)


def _newest_ms(data: Dataset) -> int:
    return int(timestamps_ms(data.events).max(initial=0)) + 1
