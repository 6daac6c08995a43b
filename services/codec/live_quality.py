"""How good the answers of a replica are, as its shard tells."""

from protos.headrace.v1 import shard_service_pb2 as pb
from services.codec.violations import Field
from shards.live_quality import Drift, LiveQuality, Recall


def live_quality_to_proto(quality: LiveQuality) -> pb.LiveQuality:
    """Return the message of what is known."""
    return pb.LiveQuality(
        golden_recall=_recall_to_proto(quality.golden),
        live_recall=_recall_to_proto(quality.live),
        recall_alarm=quality.recall_alarm,
        drifts=[
            pb.Drift(
                column=each.column,
                psi=each.psi,
                ks=each.ks,
                searches=each.searches,
                drifted=each.drifted,
            )
            for each in quality.drifts
        ],
    )


def read_live_quality(message: pb.LiveQuality, field: Field) -> LiveQuality:
    """Return what is known; refuses figures that are no numbers."""
    for i, drift in enumerate(message.drifts):
        at = field.child("drifts").element(i)
        at.child("column").check_set(drift.column)
        for name in ("psi", "ks"):
            at.child(name).check_finite(getattr(drift, name))
    golden, live = message.golden_recall, message.live_recall
    return LiveQuality(
        golden=_read_recall(golden, field.child("golden_recall")) if golden.searches else None,
        live=_read_recall(live, field.child("live_recall")) if live.searches else None,
        recall_alarm=message.recall_alarm,
        drifts=tuple(
            Drift(
                column=each.column,
                psi=each.psi,
                ks=each.ks,
                searches=each.searches,
                drifted=each.drifted,
            )
            for each in message.drifts
        ),
    )


def _recall_to_proto(recall: Recall | None) -> pb.Recall | None:
    if recall is None:
        return None
    return pb.Recall(mean=recall.mean, low=recall.low, high=recall.high, searches=recall.searches)


def _read_recall(message: pb.Recall, field: Field) -> Recall:
    for figure in ("mean", "low", "high"):
        field.child(figure).check_finite(getattr(message, figure))
    return Recall(mean=message.mean, low=message.low, high=message.high, searches=message.searches)
