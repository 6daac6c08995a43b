"""Who holds what, and which release answers for which surface: frozen values, no behaviour but look-ups."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Stage(enum.Enum):
    """A stage of the cascade; values as in `manifest.json`."""

    RETRIEVAL = "retrieval"
    PRE_RANKING = "pre-ranking"
    RANKING = "ranking"


@dataclass(frozen=True, slots=True, order=True)
class ModelVersion:
    """One immutable version of a model; names one bundle."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """Rules of the query-selection gate; `mode` is "rules", "always" or "never"."""

    mode: str = "rules"
    item_id_pattern: str = ""
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    min_query_chars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChannel:
    """One retrieval channel of a release; `quota` candidates always survive the merge."""

    name: str
    model: ModelVersion
    k: int = 200
    quota: int = 0
    weight: float = 1.0
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseScorer:
    """A scoring stage of a release: its bundle, its intake and its time."""

    model: ModelVersion
    candidates: int
    budget_ms: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The pinned versions that answer for a surface, flipped as one."""

    surface: str
    version: str
    gate: GateRules = GateRules()
    channels: tuple[ReleaseChannel, ...]
    pre_ranker: ReleaseScorer | None = None
    ranker: ReleaseScorer | None = None
    merged: int = 500
    task_exponents: Mapping[str, float] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    retrieval_budget_ms: int = 300
    history_limit: int = 200
    as_of_ms: int | None = None

    def models(self) -> dict[ModelVersion, Stage]:
        """Return every bundle the release pins and the stage it serves."""
        stages = {channel.model: Stage.RETRIEVAL for channel in self.channels}
        if self.pre_ranker:
            stages[self.pre_ranker.model] = Stage.PRE_RANKING
        if self.ranker:
            stages[self.ranker.model] = Stage.RANKING
        return stages


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
