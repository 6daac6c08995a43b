"""Who holds what, and which releases answer for which surface: one frozen table."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shards.intent import Intent
from shards.release import ModelVersion, Release, Stage, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One bundle, its stage and the shards that serve it."""

    model: ModelVersion
    stage: Stage
    shard_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One immutable table; `generation` rises by one with every commit."""

    generation: int = 0
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Shard id to HOST:PORT."""
    assignments: Mapping[ModelVersion, Assignment] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)
    """Surface to live release."""
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """Surface to what else of it is loaded; none for most."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alias to a surface or to `surface@release`."""
    intent: Intent = field(default_factory=Intent)
    """What operators have asked for; controllers only."""
