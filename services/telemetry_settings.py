"""What the processes of a cluster tell of themselves: metrics, traces and logs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROUTER, CONTROLLER, SHARD = "router", "controller", "shard"
"""Roles of processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where Prometheus finds each process: `host`, and the port of its role; 0 stands for any.

    Of several processes of a role the first takes the port that is set, and the others those that follow.
    `per_model` tells models apart, which makes a series of every bundle.
    """

    on: bool = True
    host: str = "127.0.0.1"
    router_port: int = 0
    controller_port: int = 0
    shard_port: int = 0
    per_model: bool = False

    def __post_init__(self) -> None:
        if not all(0 <= port <= 65_535 for port in (self.router_port, self.controller_port, self.shard_port)):
            raise ValueError("a port must be 0 to 65535")

    def port(self, role: str, number: int) -> int:
        """Return the port of a process of the role, the first of which has the number 0."""
        ports = {ROUTER: self.router_port, CONTROLLER: self.controller_port, SHARD: self.shard_port}
        return ports[role] and ports[role] + number


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Where spans go: to an OTLP `endpoint` over HTTP, to a file of each process in `folder`, or nowhere.

    Of the searches whose callers do not say whether they are traced, this `ratio` is.
    """

    endpoint: str = ""
    folder: str = ""
    ratio: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError("ratio must be 0 to 1")
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must begin with http:// or https://")

    @property
    def on(self) -> bool:
        """Return whether spans go anywhere."""
        return bool(self.endpoint or self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How logs are written, and which searches they mention.

    Those that take `slow_ms` or longer (0 for none), have gaps or fail, and this `share` of the others; no
    more than `most_per_s` in one second. What people search for, and who they are, is logged only where it is
    `personal` on purpose.
    """

    as_json: bool = False
    share: float = 0.0
    slow_ms: float = 1_000.0
    most_per_s: int = 20
    personal: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("share must be 0 to 1")
        if self.slow_ms < 0 or self.most_per_s < 0:
            raise ValueError("slow_ms and most_per_s must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The settings of one cluster."""

    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    logs: LogSettings = field(default_factory=LogSettings)

    @classmethod
    def of(cls, fields: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the settings of which `dataclasses.asdict` has made these fields."""
        return cls(
            metrics=MetricsSettings(**fields["metrics"]),
            traces=TraceSettings(**fields["traces"]),
            logs=LogSettings(**fields["logs"]),
        )


TARGETS = "metrics"
"""Folder of a state directory in which processes note where their metrics are."""

SILENT = Telemetry(metrics=MetricsSettings(on=False))
"""No port for metrics and no traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTelemetry:
    """What one process tells, and under which name.

    `targets_dir` is where it notes its port for Prometheus, None for nowhere, and `advertise_host` how others
    reach it that listens on every interface.
    """

    role: str
    name: str
    settings: Telemetry = SILENT
    targets_dir: Path | None = None
    advertise_host: str = ""

    @property
    def port(self) -> int:
        """Return the port of the metrics, 0 for any; names count on from 0: router-0, router-1 …"""
        number = self.name.rpartition("-")[2]
        return self.settings.metrics.port(self.role, int(number) if number.isdecimal() else 0)
