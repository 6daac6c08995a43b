import os
from pathlib import Path
from typing import Any

import pytest

from deploy.commands.up import cluster_settings
from deploy.settings import ClusterSettings, memory_bytes
from shards.errors import InvalidInput


def test_settings_survive_the_way_to_a_process() -> None:
    settings = ClusterSettings(workspace="/w ö", shards=3, replicas=2, device="cuda", router_port=9000)
    assert ClusterSettings.from_argument(settings.to_argument()) == settings
    assert settings.shard_ids == ("shard-0", "shard-1", "shard-2")


def test_memory_of_a_shard_is_a_share_of_the_host_unless_given() -> None:
    assert memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert ClusterSettings(workspace="w").shard_capacity_bytes == pytest.approx(memory_bytes() * 0.35, abs=1)
    assert ClusterSettings(workspace="w", shard_memory_bytes=5).shard_capacity_bytes == 5


def test_one_shard_holds_one_replica_unless_told_otherwise(tmp_path: Path) -> None:
    assert cluster_settings(tmp_path, shards=1, replicas=None).replicas == 1
    assert cluster_settings(tmp_path, shards=3, replicas=None).replicas == 2
    assert cluster_settings(tmp_path, shards=3, replicas=3).replicas == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": 2, "replicas": 3},
        {"shards": 2, "replicas": 0},
        {"routers": 0},
        {"router_port": 70_000},
        {"shard_memory_bytes": -1},
        {"shard_cpus": -1},
        {"gpu_fraction": 1.5},
    ],
)
def test_settings_that_contradict_themselves_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"shards": 2, "replicas": 2, **wrong}
    with pytest.raises(InvalidInput, match="settings: "):
        cluster_settings(tmp_path, **settings)
