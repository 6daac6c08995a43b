"""Answers of the cascade to the contract's messages."""

from collections.abc import Mapping

from protos.headrace.v1 import search_service_pb2, types_pb2
from router.answer import Answer, Explanation, Item, StageTiming
from router.coverage import Gap, GapReason
from router.gate import GateDecision
from services.codec import STAGE_TO_PROTO, candidates_to_proto, duration_to_proto
from shards.release import Release

REASON_TO_PROTO: Mapping[GapReason, types_pb2.GapReason.ValueType] = {
    GapReason.NO_REPLICA: types_pb2.GAP_REASON_NO_REPLICA,
    GapReason.UNAVAILABLE: types_pb2.GAP_REASON_UNAVAILABLE,
    GapReason.DEADLINE: types_pb2.GAP_REASON_DEADLINE,
    GapReason.FAILED: types_pb2.GAP_REASON_FAILED,
    GapReason.SKIPPED: types_pb2.GAP_REASON_SKIPPED,
    GapReason.SHRUNK: types_pb2.GAP_REASON_SHRUNK,
}
"""The wire's number of each reason."""


def answer_to_proto(
    answer: Answer, *, request_id: str, generation: int, explain: bool
) -> search_service_pb2.SearchResponse:
    """Return the response to a search, with its explanation only where one was asked for."""
    return search_service_pb2.SearchResponse(
        items=map(_item, answer.items),
        gate=_gate(answer.gate),
        release=_release(answer.release),
        coverage=types_pb2.Coverage(complete=not answer.gaps, gaps=map(_gap, answer.gaps)),
        timings=map(_timing, answer.timings),
        explanation=_explanation(answer.explanation) if explain else None,
        request_id=request_id,
        generation=generation,
    )


def _item(item: Item) -> search_service_pb2.SearchItem:
    return search_service_pb2.SearchItem(
        item_id=item.item_id,
        score=item.score,
        attributes=item.attributes,
        channels=item.channels,
        scores=item.scores,
        contributions=[
            search_service_pb2.FeatureContribution(feature=feature, value=value)
            for feature, value in item.contributions.items()
        ],
    )


def _gate(gate: GateDecision) -> search_service_pb2.GateDecision:
    return search_service_pb2.GateDecision(
        open=gate.open,
        reason=gate.reason,
        probability=gate.probability,
        version=gate.version,
        threshold=gate.threshold,
    )


def _release(release: Release) -> search_service_pb2.ReleaseRef:
    return search_service_pb2.ReleaseRef(surface=release.surface, version=release.version)


def _gap(gap: Gap) -> types_pb2.CoverageGap:
    return types_pb2.CoverageGap(
        stage=types_pb2.STAGE_UNSPECIFIED if gap.stage is None else STAGE_TO_PROTO[gap.stage],
        channel=gap.channel,
        model="" if gap.model is None else str(gap.model),
        reason=REASON_TO_PROTO[gap.reason],
        detail=gap.detail,
    )


def _timing(timing: StageTiming) -> search_service_pb2.StageTiming:
    return search_service_pb2.StageTiming(
        stage=STAGE_TO_PROTO[timing.stage],
        channel=timing.channel,
        model=str(timing.model),
        shard_id=timing.shard_id,
        total=duration_to_proto(timing.total_s),
        compute=duration_to_proto(timing.compute_s),
        candidates=timing.candidates,
    )


def _explanation(explanation: Explanation) -> search_service_pb2.Explanation:
    return search_service_pb2.Explanation(
        channels=[
            search_service_pb2.ChannelExplanation(channel=name, candidates=candidates_to_proto(candidates))
            for name, candidates in explanation.channels.items()
        ],
        merged=candidates_to_proto(explanation.merged),
        pre_ranked=candidates_to_proto(explanation.pre_ranked),
        ranked=candidates_to_proto(explanation.ranked),
        diversified=candidates_to_proto(explanation.diversified),
    )
