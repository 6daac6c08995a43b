from protos.headrace.v1 import types_pb2
from router.answer import Answer, Explanation
from router.answer_codec import REASON_TO_PROTO, answer_to_proto
from router.coverage import Gap, GapReason
from router.gate import GateDecision
from shards.candidates import EMPTY
from shards.release import ModelVersion, Release, ReleaseChannel, Stage

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
)


def answer(*gaps: Gap, probability: float | None = None) -> Answer:
    return Answer(
        items=(),
        gate=GateDecision(open=False, reason="blocked", probability=probability, version="g1"),
        release=RELEASE,
        gaps=gaps,
        timings=(),
        explanation=Explanation(channels={"lexical": EMPTY}, merged=EMPTY),
    )


def test_every_reason_is_on_the_wire_under_its_own_name() -> None:
    assert REASON_TO_PROTO.keys() == set(GapReason)
    for reason, number in REASON_TO_PROTO.items():
        assert types_pb2.GapReason.Name(number) == f"GAP_REASON_{reason.name}"
    assert len(types_pb2.GapReason.keys()) == len(GapReason) + 1


def test_gaps_name_what_is_missing() -> None:
    gap = Gap(
        stage=Stage.RETRIEVAL,
        channel="lexical",
        model=ModelVersion("words", "1"),
        reason=GapReason.DEADLINE,
        detail="late",
    )
    user = Gap(reason=GapReason.FAILED, detail="unreadable")
    response = answer_to_proto(answer(gap, user), request_id="q", generation=3, explain=False)
    assert not response.coverage.complete
    first, second = response.coverage.gaps
    assert (first.stage, first.channel, first.model) == (types_pb2.STAGE_RETRIEVAL, "lexical", "words@1")
    assert (first.reason, first.detail) == (types_pb2.GAP_REASON_DEADLINE, "late")
    assert (second.stage, second.model) == (types_pb2.STAGE_UNSPECIFIED, "")


def test_a_whole_answer_is_complete_and_explained_only_when_asked() -> None:
    plain = answer_to_proto(answer(), request_id="q", generation=3, explain=False)
    explained = answer_to_proto(answer(probability=0.25), request_id="q", generation=3, explain=True)
    assert plain.coverage.complete
    assert not plain.HasField("explanation")
    assert not plain.gate.HasField("probability")
    assert [channel.channel for channel in explained.explanation.channels] == ["lexical"]
    assert explained.gate.probability == 0.25
    assert (plain.request_id, plain.generation, plain.release.version) == ("q", 3, "r1")
