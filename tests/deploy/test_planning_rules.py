import json
from pathlib import Path

import pytest

from deploy.planning_rules import controller_settings
from deploy.settings import ClusterSettings
from shards.cluster_state import ControllerSettings
from shards.errors import InvalidInput
from shards.planner import Churn, Limits


def planned(folder: Path, rules: object, **settings: int) -> ControllerSettings:
    path = folder / "planning.json"
    path.write_text(json.dumps(rules))
    return controller_settings(
        ClusterSettings(workspace=str(folder), planning_path=str(path), **settings)  # type: ignore[arg-type]
    )


def test_without_a_file_a_bundle_has_the_replicas_of_the_cluster(tmp_path: Path) -> None:
    settings = ClusterSettings(workspace=str(tmp_path), shards=3, replicas=3, shard_memory_bytes=7)
    assert controller_settings(settings) == ControllerSettings(
        limits=Limits(min_replicas=3, max_replicas=3), shard_capacity_bytes=7
    )


def test_a_file_goes_over_the_defaults(tmp_path: Path) -> None:
    rules = {
        "rebalance_every_ms": 500,
        "limits": {"max_replicas": 4, "load_per_replica": 200, "churn": {"moves": 20}},
    }
    told = planned(tmp_path, rules)
    assert told.rebalance_every_ms == 500
    assert told.limits == Limits(
        min_replicas=2, max_replicas=4, load_per_replica=200, churn=Churn(moves=20, size_bytes=None)
    )


def test_a_minimum_above_the_cluster_s_replicas_raises_the_maximum(tmp_path: Path) -> None:
    limits = planned(tmp_path, {"limits": {"min_replicas": 2}}, replicas=1).limits
    assert (limits.min_replicas, limits.max_replicas) == (2, 2)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([], "must be an object"),
        ({"limits": 3}, "must be an object"),
        ({"limits": {"mode": "periodic"}}, "'mode' cannot be set here"),
        ({"shard_capacity_bytes": 3}, "'shard_capacity_bytes' cannot be set here"),
        ({"limits": {"replicas": 3}}, "planning.limits has an unknown field 'replicas'"),
        ({"limits": {"churn": {"moves": -1}}}, "must not be below 0"),
        ({"limits": {"max_replicas": 1}}, "1 <= min_replicas <= max_replicas"),
        ({"rebalance_every_ms": "often"}, "planning.rebalance_every_ms is not a int"),
    ],
)
def test_what_makes_no_sense_is_refused_by_file_and_field(
    tmp_path: Path, rules: object, problem: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        planned(tmp_path, rules)
    assert refused.value.violations[0].field == str(tmp_path / "planning.json")
    assert problem in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = ClusterSettings(workspace=str(tmp_path), planning_path=str(tmp_path / "none.json"))
    with pytest.raises(InvalidInput, match=r"none\.json"):
        controller_settings(settings)
