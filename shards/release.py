"""What a stage runs and what answers for a surface: frozen values, no behaviour but look-ups."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from shards.diversity import Diversity
from shards.release_quality import ReleaseQuality


class Stage(enum.Enum):
    """A stage of the cascade; values as in `manifest.json`."""

    RETRIEVAL = "retrieval"
    PRE_RANKING = "pre-ranking"
    RANKING = "ranking"
    GATE = "gate"
    """Decides on routers; never placed on a shard."""


@dataclass(frozen=True, slots=True, order=True)
class ModelVersion:
    """One immutable version of a model; names one bundle."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    def __hash__(self) -> int:
        # Bundles are keys of every table of the controller, and a string knows its hash already.
        return hash(self.model)


LEARNED_MODES = ("before", "after")
GATE_MODES = ("rules", "always", "never", *LEARNED_MODES)
"""What `GateRules.mode` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """The query-selection gate of a release: its rules, and the model that decides where no rule does.

    `mode` is "rules", "always", "never", or with a model "before" or "after": whether the model decides
    before lexical retrieval or after it, with the statistics of its scores. In the other modes a model only
    tells the probability, and what the rules need of training logs and titles. See docs/gate.md.
    """

    mode: str = "rules"
    item_id_pattern: str = ""
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    min_query_chars: int = 0
    navigational: tuple[str, ...] = ()
    """Queries that ask for one target, which words find."""
    navigational_share: float = 0.0
    """Share of a query's takes that went to one item in training logs, from which on it counts as
    navigational; 0 turns it off."""
    refinding_cover: float = 0.0
    """How much of a title the query must say, by weight of words, to mean an item that the user took before;
    0 turns it off."""
    model: ModelVersion | None = None
    target_rate: float = 1.0
    """Share of searches for which the model shall open the gate while the router has time."""
    least_rate: float = 0.0
    """What that share falls to when the router has no place left."""
    shadow_percent: float = 0.0
    """Share of the searches with a closed gate that are answered once more with an open one, for a report."""

    @property
    def learned(self) -> bool:
        """Return whether the model decides."""
        return self.mode in LEARNED_MODES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseChannel:
    """One retrieval channel of a release; `quota` candidates always survive the merge."""

    name: str
    model: ModelVersion
    k: int = 200
    quota: int = 0
    weight: float = 1.0
    gated: bool = False
    partitions: int = 1
    """Bundles that share the model's catalogue between them."""

    def bundles(self) -> tuple[ModelVersion, ...]:
        """Return the bundles that the channel asks: the model, or its partitions in order."""
        if self.partitions <= 1:
            return (self.model,)
        return tuple(partition_of(self.model, i, self.partitions) for i in range(self.partitions))


def partition_of(model: ModelVersion, index: int, partitions: int) -> ModelVersion:
    """Return the bundle that holds partition `index`, counted from 0, of a model's catalogue."""
    return ModelVersion(f"{model.model}.{index}-of-{partitions}", model.version)


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
    exclude_actions: tuple[str, ...] = ()
    """Items of the user's history with one of these actions are left out of the answer."""
    on_demand: bool = False
    diversity: Diversity | None = None
    """Puts the first items of the last stage in another order; None leaves them."""
    quality: ReleaseQuality | None = None
    """How it compared with the release that was live before; it changes no answer."""

    @property
    def name(self) -> str:
        """Return `surface@version`."""
        return f"{self.surface}@{self.version}"

    def depth(self, page_size: int) -> int:
        """Return how many items of the last stage a page of this size is made of."""
        return max(page_size, self.diversity.candidates) if self.diversity else page_size

    def texts(self) -> tuple[str, ...]:
        """Return the attributes that shards are asked for: those to show and those that diversity goes by."""
        read = self.diversity.reads() if self.diversity else ()
        return tuple(dict.fromkeys((*self.attributes, *read)))

    def models(self) -> dict[ModelVersion, Stage]:
        """Return every bundle the release pins and the stage it serves."""
        stages = {bundle: Stage.RETRIEVAL for channel in self.channels for bundle in channel.bundles()}
        return stages | {scorer.model: stage for stage, scorer in self.scorers()}

    def scorers(self) -> tuple[tuple[Stage, ReleaseScorer], ...]:
        """Return the scoring stages that the release has, in the order of the cascade."""
        stages = ((Stage.PRE_RANKING, self.pre_ranker), (Stage.RANKING, self.ranker))
        return tuple((stage, scorer) for stage, scorer in stages if scorer)

    def partition_groups(self) -> dict[ModelVersion, str]:
        """Return for every partition the model whose catalogue it holds a part of; partitions go apart."""
        return {
            bundle: str(channel.model)
            for channel in self.channels
            if channel.partitions > 1
            for bundle in channel.bundles()
        }


class ReleaseRole(enum.Enum):
    """What a release is deployed as."""

    LIVE = "live"
    CANARY = "canary"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What else of a surface is loaded beside the live release; shares in percent."""

    canary: Release | None = None
    canary_percent: float = 0.0
    shadow: Release | None = None
    shadow_percent: float = 0.0
    previous: Release | None = None

    def releases(self) -> tuple[Release, ...]:
        """Return those that there are."""
        return tuple(release for release in (self.canary, self.shadow, self.previous) if release)
