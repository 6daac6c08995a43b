"""How good the answers of the bundles are: recall beside an exact search, and what has drifted."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from deploy.views.table import bundle, new_table
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2

_ALARM, _WELL = Text("ALARM", "red"), Text("")


def recall_table(models: Iterable[pb.Model]) -> Table:
    """Return a table of the recall of every replica of an engine that may miss items."""
    headings = ("model", "shard", "goldens", "live ± 95 %", "searches", "")
    table = new_table("Recall beside an exact search", *headings, numeric=headings[2:5], long=("model",))
    for model in models:
        for held in model.replicas:
            quality = held.replica.quality
            if quality.HasField("golden_recall") or quality.HasField("live_recall"):
                table.add_row(
                    bundle(model.model),
                    held.shard_id,
                    f"{quality.golden_recall.mean:.3f}" if quality.HasField("golden_recall") else "",
                    live_recall(quality),
                    f"{quality.live_recall.searches:,}" if quality.HasField("live_recall") else "",
                    _ALARM if quality.recall_alarm else _WELL,
                )
    return table


def drift_table(models: Iterable[pb.Model]) -> Table:
    """Return a table of the columns that are furthest from training."""
    headings = ("model", "shard", "column", "PSI", "KS", "searches", "")
    table = new_table("Drift beside training", *headings, numeric=headings[3:6], long=("model", "column"))
    for model in models:
        for held in model.replicas:
            for drift in held.replica.quality.drifts:
                table.add_row(
                    bundle(model.model),
                    held.shard_id,
                    drift.column,
                    f"{drift.psi:.3f}",
                    f"{drift.ks:.3f}",
                    f"{drift.searches:,}",
                    _ALARM if drift.drifted else _WELL,
                )
    return table


def live_recall(quality: shard_service_pb2.LiveQuality) -> str:
    """Return the live recall with its interval; empty where no search was looked at."""
    if not quality.HasField("live_recall"):
        return ""
    recall = quality.live_recall
    return f"{recall.mean:.3f} ({recall.low:.3f} to {recall.high:.3f})"


def alarms_of(model: pb.Model) -> str:
    """Return which alarms the replicas of a bundle raise; empty for none."""
    low = any(held.replica.quality.recall_alarm for held in model.replicas)
    columns = {d.column: None for held in model.replicas for d in held.replica.quality.drifts if d.drifted}
    told = ["recall is low"] if low else []
    return ", ".join([*told, *(f"{column} has drifted" for column in columns)])
