"""`headrace.toml`: what a shop is, where its data comes from, how it is trained and how its cluster runs.

Every section is decoded by the type of what it sets, so that an unknown key or a value of another kind is an
error that names it.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.settings import ClusterSettings
from deploy.workspace import PROJECT_FILE
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json
from shards.release import GATE_MODES, GateRules

GENERAL = "general"
"""The recipe that is made from the columns of the tables."""

_NOT_OPERATORS = frozenset({"workspace", "joins_ray", "supervised", "controller_address", "process"})
"""Settings of a cluster that follow from how it is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Where the tables come from, and what is made where they lack it; paths are relative to the project."""

    folder: str = "data"
    """Where the checked tables are."""
    items: str = ""
    events: str = ""
    users: str = ""
    """Empty: users are those of the events."""
    queries: str = ""
    """Empty: queries are proxies, made from titles of what was taken."""
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By table: our column to the one of the file."""
    taken: tuple[str, ...] = ()
    """Actions by which an item counts as found, for proxies; empty: all."""
    proxies: int = 100_000
    """At most so many queries are made."""
    valid_share: float = 0.1
    test_share: float = 0.1
    """Last shares of the queries, in time, where these have no split."""

    def __post_init__(self) -> None:
        if not (self.valid_share > 0 and self.test_share > 0 and self.valid_share + self.test_share < 1):
            raise ValueError("valid_share and test_share must be positive and leave something to train on")
        if self.proxies < 1:
            raise ValueError("proxies must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSection:
    """Which recipe trains, and what is set in place of its own settings."""

    base: str = GENERAL
    """"general" or one of `headrace recipes list`."""
    seed: int = 0
    threads: int = 1
    set: Mapping[str, Any] = field(default_factory=dict)
    """Settings by path, as `headrace train --set` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """What `headrace.toml` says, checked but for what `deploy.project_recipe` makes of it."""

    surface: str
    data: DataSection = field(default_factory=DataSection)
    features: Mapping[str, Any] = field(default_factory=dict)
    """What columns are read as: `training.shop_columns`."""
    channels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name: `training.channel_recipe`."""
    recipe: RecipeSection = field(default_factory=RecipeSection)
    gate: GateRules = field(default_factory=lambda: GateRules(mode="before", target_rate=0.7))
    cluster: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self) -> tuple[str, ...]:
        """Return `recipe.set` as the command line spells it: "two_tower.fit.epochs=3"."""
        return tuple(f"{path}={_spelt(value)}" for path, value in _flat(self.recipe.set))

    def cluster_settings(self, folder: Path) -> dict[str, Any]:
        """Return the settings of the cluster that the file names, with paths as of the project's folder."""
        named = {
            name: _located(folder, name, value) for name, value in _with_consequences(self.cluster).items()
        }
        settings = from_json(ClusterSettings, {"workspace": "", **named}, "cluster")
        return {name: getattr(settings, name) for name in named}


def read_document(path: Path) -> dict[str, Any]:
    """Return the TOML in a file. Raises `InvalidInput` that names the file and the line at fault."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(FieldViolation(str(path), str(error))) from error


def project_file(document: object) -> ProjectFile:
    """Return the file that a TOML document describes; raises ValueError naming the key at fault."""
    said = from_json(ProjectFile, document, PROJECT_FILE)
    if not said.surface:
        raise ValueError("surface must not be empty")
    if said.gate.mode not in GATE_MODES:
        raise ValueError(f"gate.mode must be one of {', '.join(GATE_MODES)}, not {said.gate.mode!r}")
    if said.gate.model is not None:
        raise ValueError("gate.model is trained with the rest and cannot be set")
    if own := sorted(_NOT_OPERATORS & said.cluster.keys()):
        raise ValueError(f"cluster.{own[0]} follows from how the cluster is started and cannot be set")
    said.cluster_settings(Path())
    return said


def _with_consequences(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with what follows from them: for fewer shards, and for a Ray that runs already."""
    ray = (
        {"joins_ray": True, "shard_host": "0.0.0.0", "shard_cpus": 1.0} if cluster.get("ray_address") else {}
    )
    return {**({"replicas": 1} if cluster.get("shards") == 1 else {}), **ray, **cluster}


def _located(folder: Path, name: str, value: Any) -> Any:
    is_folder = name == "user_store" and "://" not in str(value)
    if value and (name.endswith("_path") or is_folder):
        return str((folder / value).absolute())
    return value


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(tuple(value)) if isinstance(value, list) else str(value)
