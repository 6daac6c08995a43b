"""What the cascade answers: ranked items, and all that explains them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.coverage import Gap
from router.gate import GateDecision
from shards.candidates import EMPTY, Candidates
from shards.release import ModelVersion, Release, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One ranked item; `scores` by column, without those in which it has none."""

    item_id: str
    score: float
    attributes: Mapping[str, str]
    channels: tuple[str, ...]
    scores: Mapping[str, float]
    contributions: Mapping[str, float] = field(default_factory=dict)
    """By feature of the ranker, the largest first, where they were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """Time spent in one call as the router saw it, what of it the shard computed and let wait, and its yield.

    Of a call for several stages, `total_s` is what this one took on the shard.
    """

    stage: Stage
    channel: str = ""
    model: ModelVersion
    shard_id: str
    total_s: float
    compute_s: float
    queue_s: float = 0.0
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What each stage saw and scored, best first; a stage that did not run is empty."""

    channels: Mapping[str, Candidates]
    merged: Candidates
    pre_ranked: Candidates = EMPTY
    ranked: Candidates = EMPTY
    diversified: Candidates = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one search; complete when there are no gaps."""

    items: tuple[Item, ...]
    gate: GateDecision
    release: Release
    gaps: tuple[Gap, ...]
    timings: tuple[StageTiming, ...]
    explanation: Explanation
