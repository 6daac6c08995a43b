"""The folder a cluster works in: bundles, releases, users, and the state that survives a restart."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.durable_file import replace_file
from services.telemetry_settings import TARGETS
from shards.errors import Conflict, FieldViolation, InvalidInput, Unavailable
from shards.json_codec import from_json, parse, render, to_json

PROJECT_FILE = "headrace.toml"

PROJECT_WORKSPACE = ".headrace"
"""The workspace of a project, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The cluster that runs in a workspace: addresses (HOST:PORT, empty while it starts) and process ids.

    `console` is empty where there is none.
    """

    pid: int
    router: str = ""
    controller: str = ""
    console: str = ""
    processes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths below the workspace's folder, and who runs in it.

    One supervisor at a time holds the lock `state/up.lock`; the kernel lets it go with its process,
    however that ends. `state/up.json` says where the holder's cluster is.
    """

    root: Path

    @property
    def models_dir(self) -> Path:
        """Return the folder of bundles, `<model>/<version>` each."""
        return self.root / "models"

    @property
    def releases_dir(self) -> Path:
        """Return the folder of releases, `<surface>.json` each."""
        return self.root / "releases"

    @property
    def outcomes_dir(self) -> Path:
        """Return the folder of what routers write down of searches and events."""
        return self.root / "outcomes"

    @property
    def training_dir(self) -> Path:
        """Return the folder of training runs: checkpoints and metrics."""
        return self.root / "training"

    @property
    def retraining_dir(self) -> Path:
        """Return the folder of what `headrace retrain` decided, `<surface>.jsonl` each."""
        return self.root / "retraining"

    def tuning_dir(self, name: str) -> Path:
        """Return the folder of what was tried for a model or a recipe."""
        return self.root / "tuning" / name

    @property
    def catalogue_dir(self) -> Path:
        """Return the folder of blocks of embedded catalogues."""
        return self.root / "catalogue"

    @property
    def embedded_users_dir(self) -> Path:
        """Return the folder of blocks of users whose vectors are being made."""
        return self.root / "embedded-users"

    @property
    def users_path(self) -> Path:
        """Return the user store."""
        return self.root / "users.lmdb"

    @property
    def gate_report_path(self) -> Path:
        """Return where `headrace gate report --out` of the folder `gate` leaves its figures."""
        return self.root / "gate" / "gate.json"

    @property
    def state_dir(self) -> Path:
        """Return the folder of everything that a running cluster writes."""
        return self.root / "state"

    @property
    def logs_dir(self) -> Path:
        """Return the folder of logs."""
        return self.state_dir / "logs"

    @property
    def metrics_dir(self) -> Path:
        """Return the folder in which each process notes where its metrics are."""
        return self.state_dir / TARGETS

    @property
    def placement_path(self) -> Path:
        """Return the controller's snapshot."""
        return self.state_dir / "placement.json"

    def leader_seat_path(self, host: str) -> Path:
        """Return what the leading controller of a host holds."""
        return self.state_dir / f"leader-{host}.lock"

    @property
    def router_cache_path(self) -> Path:
        """Return the placement that the router knew last."""
        return self.state_dir / "router-placement.json"

    @property
    def ray_record_path(self) -> Path:
        """Return the note of the folder in which Ray works."""
        return self.state_dir / "ray.json"

    @property
    def ray_token_path(self) -> Path:
        """Return the secret that Ray asks of whoever joins it."""
        return self.state_dir / "ray-token"

    @property
    def audit_path(self) -> Path:
        """Return the log of what operators did."""
        return self.state_dir / "audit.jsonl"

    def caller_token_path(self, name: str) -> Path:
        """Return the secret by which a process of the cluster calls others, where access is ruled."""
        return self.state_dir / f"{name}-token"

    @property
    def _running_path(self) -> Path:
        return self.state_dir / "up.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the workspace for a cluster; raises `Conflict` when one runs in it."""
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        descriptor = self._open_lock()
        try:
            if not _try_lock(descriptor):
                raise Conflict(f"a cluster runs in {self.root} already; `headrace down` stops it")
            try:
                yield
            finally:
                self._running_path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def forget_metrics(self) -> None:
        """Remove notes of processes that are no more; for the holder of the claim."""
        for path in self.metrics_dir.glob("*.json"):
            path.unlink(missing_ok=True)

    def note(self, running: Running) -> None:
        """Write down where the cluster is; for the holder of the claim."""
        replace_file(self._running_path, render(to_json(running)))

    def running(self) -> Running:
        """Return the cluster that runs here; raises `Unavailable` when none does, or not yet."""
        running = self.claimant()
        if not (running.router and running.controller):
            raise Unavailable(f"the cluster in {self.root} is only just starting")
        return running

    def claimant(self) -> Running:
        """Return the cluster that holds the workspace, without addresses while it starts.

        Raises `Unavailable` when none does.
        """
        if not self.claimed():
            raise Unavailable(f"no cluster runs in {self.root}; `headrace up` starts one")
        try:
            return from_json(Running, parse(self._running_path.read_bytes()))
        except (OSError, ValueError) as error:
            raise Unavailable(f"the cluster in {self.root} is only just starting or stopping") from error

    def claimed(self) -> bool:
        """Return whether a cluster holds the workspace."""
        if not self.state_dir.is_dir():
            return False
        descriptor = self._open_lock()
        try:
            return not _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        return os.open(self.state_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def workspace_of(project: Path | None, otherwise: Path) -> Workspace:
    """Return the workspace of the project in a folder, or the other one where none is named.

    Raises `InvalidInput` where there is no such project.
    """
    if project is None:
        return Workspace(otherwise)
    if not (project / PROJECT_FILE).is_file():
        problem = f"{project / PROJECT_FILE} does not exist; `headrace init` makes a project"
        raise InvalidInput(FieldViolation("project", problem))
    return Workspace(project / PROJECT_WORKSPACE)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
