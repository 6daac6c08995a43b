from pathlib import Path

import pytest

from deploy.planning_rules import controller_settings
from deploy.serving_rules import serving_rules, told
from deploy.settings import ClusterSettings
from router.router_config import RouterConfig
from services.shard_config import ShardConfig
from shards.errors import InvalidInput
from shards.live_quality import QualitySettings


def settings(path: Path | None) -> ClusterSettings:
    return ClusterSettings(workspace="/nowhere", serving_path=str(path) if path else "")


def test_without_a_file_the_defaults_stand() -> None:
    rules = serving_rules(settings(None))
    assert told(rules.router) == told(rules.shard) == {}


def test_what_the_file_says_reaches_routers_and_shards(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    path.write_text(
        """{
          "router": {
            "max_in_flight": 512, "max_connection_age_s": 60.0,
            "limit": {"floor": 16}, "replicas": {"ejection": {"consecutive": 7}},
            "calls": {"hedging": {"margin": 2.0}, "retries": {"share": 0.1}}
          },
          "shard": {"workers": 2, "queue_share": 0.5, "quality": {"share": 0.5, "min_recall": 0.9}}
        }"""
    )
    rules = serving_rules(settings(path))
    router = RouterConfig(controller="h:1", **told(rules.router))
    assert (router.max_in_flight, router.max_connection_age_s, router.limit.floor) == (512, 60.0, 16)
    assert router.replicas.ejection.consecutive == 7
    assert (router.calls.hedging.margin, router.calls.retries.share) == (2.0, 0.1)
    assert router.default_deadline_s == RouterConfig(controller="h:1").default_deadline_s
    shard = ShardConfig(shard_id="s", state_dir=tmp_path, **told(rules.shard))
    assert (shard.workers, shard.queue_share, shard.max_queue) == (2, 0.5, 64)
    assert shard.quality == QualitySettings(share=0.5, min_recall=0.9)
    controller = controller_settings(settings(path))
    assert (controller.min_recall, controller.recall_searches) == (0.9, shard.quality.least_searches)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"router": {"speed": 1}}', "speed"),
        ('{"router": {"limit": {"floor": 0}}}', "floor"),
        ('{"shard": {"quality": {"share": 2.0}}}', "share"),
        ("{", "serving.json"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serving.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        serving_rules(settings(path))
