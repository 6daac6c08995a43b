"""Sizes, times and names as people read them."""

import pytest
from rich.console import Console

from deploy.views.live_quality import alarms_of, drift_table, recall_table
from deploy.views.models import models_table
from deploy.views.table import bundle, size, span
from protos.headrace.v1 import cluster_service_pb2, shard_service_pb2, types_pb2
from services.codec.live_quality import live_quality_to_proto
from shards.live_quality import Drift, LiveQuality, Recall


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3599.7, "1 h"),
        (7800, "2 h 10 min"),
        (86_400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_spans(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_sizes() -> None:
    assert [size(n) for n in (0, 3 << 20, 1 << 30, 3 << 40)] == ["0.0 MB", "3.0 MB", "1.0 GB", "3,072.0 GB"]


def test_long_names_take_two_lines() -> None:
    def name(model: str) -> str:
        return bundle(types_pb2.ModelVersion(model=model, version="20261121-233015"))

    assert name("ranker") == "ranker@20261121-233015"
    assert name("online_retail-ranker") == "online_retail-ranker\n@20261121-233015"


def test_recall_and_drift_are_told_and_alarms_stand_out() -> None:
    quality = LiveQuality(
        golden=Recall.of(7.2, 8),
        live=Recall.of(240.0, 300),
        recall_alarm=True,
        drifts=(
            Drift(column="feature price", psi=1.25, ks=0.5, searches=300, drifted=True),
            Drift(column="score", psi=0.01, ks=0.02, searches=300, drifted=False),
        ),
    )
    replica = shard_service_pb2.Replica(quality=live_quality_to_proto(quality))
    model = cluster_service_pb2.Model(
        model=types_pb2.ModelVersion(model="towers", version="7"),
        replicas=[cluster_service_pb2.ShardReplica(shard_id="shard-1", replica=replica)],
    )
    assert alarms_of(model) == "recall is low, feature price has drifted"
    console = Console(width=150, record=True)
    for table in (recall_table([model]), drift_table([model]), models_table([model])):
        console.print(table)
    text = console.export_text()
    for told in (
        "shard-1",
        "0.900",
        "0.800 (0.751 to 0.841)",
        "300",
        "feature price",
        "1.250",
        "recall is low",
    ):
        assert told in text
    assert text.count("ALARM") == 2
