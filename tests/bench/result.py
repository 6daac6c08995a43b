"""What every benchmark leaves behind: a table for people and `build/bench/<name>.json` for programs."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "build" / "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure beside its aim; `aim` reads like ">= 0.5"."""

    name: str
    value: float
    unit: str
    aim: str
    ok: bool


def at_least(name: str, value: float, aim: float, unit: str = "") -> Check:
    """Return the check that a figure is no smaller than its aim."""
    return Check(name=name, value=value, unit=unit, aim=f">= {aim:g}", ok=value >= aim)


def at_most(name: str, value: float, aim: float, unit: str = "") -> Check:
    """Return the check that a figure is no larger than its aim."""
    return Check(name=name, value=value, unit=unit, aim=f"<= {aim:g}", ok=value <= aim)


def publish(
    name: str, *, settings: Mapping[str, object], figures: Mapping[str, object], checks: Sequence[Check]
) -> Path:
    """Print the checks and write the benchmark's file; returns its path."""
    document = {
        "name": name,
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "settings": dict(settings),
        "figures": dict(figures),
        "checks": [asdict(check) for check in checks],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    Console().print(_table(name, checks))
    return path


def machine() -> dict[str, object]:
    """Return what a reader of the figures must know of the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _table(name: str, checks: Sequence[Check]) -> Table:
    table = Table(title=name, title_justify="left")
    table.add_column("figure", overflow="fold")
    for heading in ("value", "aim"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ok")
    for check in checks:
        value = f"{check.value:.4g} {check.unit}".strip()
        table.add_row(check.name, value, f"{check.aim} {check.unit}".strip(), "yes" if check.ok else "NO")
    return table
