"""A shard looks again at what it answers: recall and drift are seen, and nobody waits for that."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.live_watch import LiveWatch, Sample
from services.shard_config import ShardConfig
from services.shard_process import command, config_of
from services.shard_server import ShardServer
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep
from shards.live_quality import LiveQuality, QualitySettings
from shards.reference import Column, Reference, reference_of
from shards.release import ModelVersion, Stage
from shards.replica import Replica
from shards.residency import Residency
from shards.search_context import SearchContext
from shards.watched_values import Watched
from tests.services.shard_client import Models, ShardClient, connect
from tests.shards import bundles
from training.reference_writing import with_reference

TWO_TOWER, PRE_RANKER = ModelVersion("two_tower", "1"), ModelVersion("pre_ranker", "1")
ALL = QualitySettings(share=1.0, least_searches=20, min_recall=0.99, queue=200, patience_s=30.0)
CONTEXT = bundles.context()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return a retriever that misses much, and a pre-ranker whose scores were another's in training."""
    root = tmp_path_factory.mktemp("watched")
    words = bundles.seeded_words()
    bundles.write_two_tower(root, words, index="IVF16,Flat")
    bundles.write_three_tower(root, words)
    elsewhere: list[Watched] = [{"score": np.full(10, 100.0 + at)} for at in range(100)]
    reference = reference_of(elsewhere)
    assert reference is not None
    with_reference(root, PRE_RANKER, reference)
    return Models(root, bundles.RELEASE)


async def seen(client: ShardClient, model: ModelVersion, enough: Callable[[LiveQuality], bool]) -> Replica:
    """Return the replica once enough is known of it."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        replica = (await client.replicas())[model]
        if enough(replica.quality):
            return replica
        await asyncio.sleep(0.02)
    raise AssertionError(f"{replica.quality}")


def test_recall_and_drift_are_told_with_their_counts_and_alarms(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, quality=ALL)
    steps = (
        CascadeStep(stage=Stage.RETRIEVAL, channel="two_tower", model=TWO_TOWER, keep=10),
        CascadeStep(stage=Stage.PRE_RANKING, model=PRE_RANKER, keep=10, intake=10),
    )

    async def main() -> tuple[Replica, Replica]:
        async with ShardServer(config) as server, connect(server.address) as client:
            for model in (TWO_TOWER, PRE_RANKER):
                await client.load(model, models.path(model))
            for at in range(30):
                context = bundles.context(bundles.QUERIES[at % len(bundles.QUERIES)])
                await client.run(CascadeCall(context=context, steps=steps, merged=10))
            retriever = await seen(client, TWO_TOWER, lambda q: bool(q.live and q.live.searches == 30))
            scorer = await seen(client, PRE_RANKER, lambda q: bool(q.drifts and q.drifts[0].searches == 30))
            return retriever, scorer

    retriever, scorer = asyncio.run(main())
    golden, live = retriever.quality.golden, retriever.quality.live
    assert golden is not None
    assert live is not None
    assert 0 < live.low < live.mean < live.high < 0.99
    assert golden.searches == len(bundles.contexts())
    assert retriever.quality.recall_alarm
    assert scorer.quality.golden is None
    (drift,) = scorer.quality.drifts
    assert (drift.column, drift.drifted) == ("score", True)
    assert drift.ks == pytest.approx(1.0)


def test_what_nobody_wants_watched_is_not(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, quality=QualitySettings(share=0.0))

    async def main() -> Replica:
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(TWO_TOWER, models.path(TWO_TOWER))
            await client.retrieve(models.retrieval(model=TWO_TOWER))
            return (await client.replicas())[TWO_TOWER]

    quality = asyncio.run(main()).quality
    assert quality.golden is not None
    assert quality.live is None


def sample(model: ModelVersion = TWO_TOWER) -> Sample:
    return Sample(model=model, stage=Stage.RETRIEVAL, context=CONTEXT, answer=Candidates(item_ids=()), k=10)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_a_busy_shard_drops_samples_and_the_queue_is_bounded(models: Models) -> None:
    settings = QualitySettings(share=1.0, queue=3, patience_s=0.05)
    residency = Residency()
    residency.load(TWO_TOWER, models.path(TWO_TOWER))
    watch = LiveWatch(settings, residency, lambda: True)
    for _ in range(10):
        watch.offer(sample())
    assert dict(watch.samples.read())["dropped",] == 7
    with watch:
        until(lambda: dict(watch.samples.read()).get(("dropped",)) == 10)


def test_samples_of_a_bundle_that_has_left_are_dropped(models: Models) -> None:
    residency = Residency()
    residency.load(TWO_TOWER, models.path(TWO_TOWER))
    with LiveWatch(QualitySettings(share=1.0), residency, lambda: False) as watch:
        watch.offer(sample())
        until(lambda: bool(watch.samples.read()))
        residency.unload(TWO_TOWER)
        watch.offer(sample())
        until(lambda: ("dropped",) in dict(watch.samples.read()))
    assert dict(watch.samples.read()) == {("watched",): 1, ("dropped",): 1}


def test_its_share_is_that_of_the_settings() -> None:
    watch = LiveWatch(QualitySettings(share=0.1), Residency(), lambda: False, rng=random.Random(1))
    assert 60 < sum(watch.wants() for _ in range(1_000)) < 140


def test_what_cannot_be_watched_is_counted_and_logged(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    residency = Residency()
    residency.load(TWO_TOWER, models.path(TWO_TOWER))
    broken = Sample(
        model=TWO_TOWER,
        stage=Stage.RETRIEVAL,
        context=SearchContext(query="mug", now_ms=bundles.NOW_MS),
        answer=Candidates(item_ids=("item-001",)),
        k=10,
    )
    with LiveWatch(QualitySettings(share=1.0), residency, lambda: False) as watch:
        watch.offer(broken)
        until(lambda: ("failed",) in dict(watch.samples.read()))
        watch.offer(sample())
        until(lambda: ("watched",) in dict(watch.samples.read()))
    assert "two_tower@1 could not be watched" in caplog.text


def test_settings_reach_the_process_of_a_shard(tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, quality=ALL)
    assert config_of(command(config)[-1]) == config


@pytest.mark.parametrize(
    "wrong", [{"share": 2.0}, {"share": float("nan")}, {"queue": 0}, {"window_s": 0.0}, {"psi": -1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QualitySettings(**wrong)  # type: ignore[arg-type]


def test_a_column_must_be_whole() -> None:
    for ends, shares in (((1.0, 0.0), (0.5, 0.5, 0.0)), ((0.0,), (1.0,)), ((0.0,), (0.9, 0.9))):
        with pytest.raises(ValueError, match=r"ends|share"):
            Column(ends=ends, shares=shares)
    with pytest.raises(ValueError, match="searches"):
        Reference(searches=0, columns={})
