"""What a search returns to the Python client: frozen values, decoded with protos alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from protos.headrace.v1 import search_service_pb2, types_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One ranked item: attributes to show, the channels that brought it, its scores by column."""

    item_id: str
    score: float
    attributes: Mapping[str, str]
    channels: tuple[str, ...]
    scores: Mapping[str, float]
    contributions: Mapping[str, float] = field(default_factory=dict)
    """What features of the ranker add to its score, the largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether embedding retrieval was triggered and why; `threshold` is that of the probability."""

    open: bool
    reason: str
    probability: float | None
    version: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that the answer could not include; `stage` and `reason` are lower-case words."""

    stage: str
    channel: str
    model: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Time spent in one call of the cascade, as the router saw it, and how many candidates came back."""

    stage: str
    channel: str
    model: str
    shard_id: str
    total_ms: float
    compute_ms: float
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageList:
    """Candidates after one stage, best first; NaN in a column where an item has no value.

    `attributes` are of the first items, as many as were asked for.
    """

    item_ids: list[str]
    columns: dict[str, list[float]] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What each stage saw and scored; a stage that did not run has an empty list."""

    channels: dict[str, StageList]
    merged: StageList
    pre_ranked: StageList
    ranked: StageList
    diversified: StageList


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The answer to one search; `explanation` only when it was asked for."""

    items: tuple[Item, ...]
    gate: Gate
    surface: str
    release: str
    complete: bool
    gaps: tuple[Gap, ...]
    timings: tuple[Timing, ...]
    explanation: Explanation | None
    request_id: str
    generation: int


def decode(response: search_service_pb2.SearchResponse) -> SearchResult:
    """Return the response as frozen values."""
    return SearchResult(
        items=tuple(map(_item, response.items)),
        gate=_gate(response.gate),
        surface=response.release.surface,
        release=response.release.version,
        complete=response.coverage.complete,
        gaps=tuple(map(_gap, response.coverage.gaps)),
        timings=tuple(map(_timing, response.timings)),
        explanation=_explanation(response.explanation) if response.HasField("explanation") else None,
        request_id=response.request_id,
        generation=response.generation,
    )


def _item(item: search_service_pb2.SearchItem) -> Item:
    return Item(
        item_id=item.item_id,
        score=item.score,
        attributes=dict(item.attributes),
        channels=tuple(item.channels),
        scores=dict(item.scores),
        contributions={each.feature: each.value for each in item.contributions},
    )


def _gate(gate: search_service_pb2.GateDecision) -> Gate:
    probability = gate.probability if gate.HasField("probability") else None
    return Gate(
        open=gate.open,
        reason=gate.reason,
        probability=probability,
        version=gate.version,
        threshold=gate.threshold if gate.HasField("threshold") else None,
    )


def _gap(gap: types_pb2.CoverageGap) -> Gap:
    return Gap(
        stage=_stage(gap.stage),
        channel=gap.channel,
        model=gap.model,
        reason=types_pb2.GapReason.Name(gap.reason).removeprefix("GAP_REASON_").lower(),
        detail=gap.detail,
    )


def _timing(timing: search_service_pb2.StageTiming) -> Timing:
    return Timing(
        stage=_stage(timing.stage),
        channel=timing.channel,
        model=timing.model,
        shard_id=timing.shard_id,
        total_ms=milliseconds(timing.total),
        compute_ms=milliseconds(timing.compute),
        candidates=timing.candidates,
    )


def _explanation(explanation: search_service_pb2.Explanation) -> Explanation:
    return Explanation(
        channels={each.channel: stage_list(each.candidates) for each in explanation.channels},
        merged=stage_list(explanation.merged),
        pre_ranked=stage_list(explanation.pre_ranked),
        ranked=stage_list(explanation.ranked),
        diversified=stage_list(explanation.diversified),
    )


def stage_list(candidates: types_pb2.Candidates) -> StageList:
    """Return the candidates as frozen values."""
    return StageList(
        item_ids=list(candidates.item_ids),
        columns={column.name: list(column.values) for column in candidates.columns},
        attributes={column.name: list(column.values) for column in candidates.attributes},
    )


def _stage(stage: types_pb2.Stage.ValueType) -> str:
    return types_pb2.Stage.Name(stage).removeprefix("STAGE_").lower()


def milliseconds(duration: Duration) -> float:
    """Return how long a duration is."""
    return duration.seconds * 1e3 + duration.nanos / 1e6
