"""A split replayed with a release that is refreshed on the way, and rankers that learn from one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.errors import InvalidInput
from shards.release import Release
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE, gate
from training import learning
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.datasets.statistics import DAY_MS
from training.datasets.tables import timestamps_ms
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import evaluate
from training.evaluation.replay import replay
from training.judgements import Judgements
from training.pipeline import train
from training.recipe import Recipe
from training.refreshing import Stretch, open_refreshed, stretches
from training.run import Run
from training.snapshot import snapshot

DATA = shop_dataset()
TEST_MS = known_until_ms(DATA)
CHANNELS = tuple(c for c in RECIPE.channels if c.source != "two_tower")
PLAIN = Recipe(name="shop", surface="shop", channels=CHANNELS)
JUDGED = judged_queries(DATA, "test", limit=0, history_limit=200)
TIMES_MS = [query.context.now_ms for query in JUDGED]


def run(recipe: Recipe = PLAIN) -> Run:
    return Run(recipe=recipe, dataset=DATA, seed=3, gate=gate)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def release(models_dir: Path) -> Release:
    return train(run(), Destination(root=models_dir, prefix="shop", version="1")).release


def popular(stretch: Stretch) -> tuple[str, ...]:
    return stretch.cascade.retrievers["popular"].retrieve(JUDGED[0].context, 10, (), (), 0).item_ids


def test_every_search_is_answered_by_what_was_known_at_the_last_refresh(
    release: Release, models_dir: Path
) -> None:
    asked = []
    for n, stretch in enumerate(stretches(run(), release, models_dir, TIMES_MS, 2.0)):
        times_ms = TIMES_MS[stretch.searches]
        assert stretch.known.now_ms == TEST_MS + n * 2 * DAY_MS
        assert stretch.known.now_ms <= times_ms[0] <= times_ms[-1] < stretch.known.now_ms + 2 * DAY_MS
        items = stretch.known.items
        sold = dict(zip(*(items.column(c).to_pylist() for c in ("item_id", "popularity_30d")), strict=True))
        assert [sold[item_id] for item_id in popular(stretch)] == sorted(sold.values(), reverse=True)[:10]
        asked += times_ms
    assert asked == TIMES_MS
    assert n == 2


def test_a_replay_ranks_as_the_release_of_each_moment_does(release: Release, models_dir: Path) -> None:
    ranks = replay(run(), release, models_dir, JUDGED, 2.0, gate=lambda *_: True)
    assert ranks.query_ids == tuple(query.query_id for query in JUDGED)
    once = evaluate_once(release, models_dir, TEST_MS + 2 * DAY_MS)
    later = [n for n, now_ms in enumerate(TIMES_MS) if 2 <= (now_ms - TEST_MS) / DAY_MS < 4]
    for name, ranks_Q in ranks.by_ranking.items():
        assert np.array_equal(ranks_Q[later], once[name][later])
    stale = evaluate_once(release, models_dir, TEST_MS)
    assert any(not np.array_equal(ranks.by_ranking[name], stale[name]) for name in stale)


def evaluate_once(release: Release, models_dir: Path, now_ms: int) -> dict[str, np.ndarray]:
    with open_refreshed(run(), release, models_dir, snapshot(DATA, now_ms)) as cascade:
        return dict(evaluate(cascade, JUDGED, gate=lambda *_: True).by_ranking)


def test_a_release_that_knows_the_searches_is_refused(release: Release, models_dir: Path) -> None:
    early = [TEST_MS - 1, *TIMES_MS]
    with pytest.raises(InvalidInput, match="release: knows what came after"):
        list(stretches(run(), release, models_dir, early, 1.0))


class Captured(Exception):
    """Ends a run where the rankers would be trained."""


def test_rankers_learn_from_what_was_known_at_the_last_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Judgements] = []

    def capture(*arguments: object, **_options: object) -> None:
        found.extend(part for part in arguments if isinstance(part, Judgements))
        raise Captured

    monkeypatch.setattr(learning, "train_rankers", capture)
    with pytest.raises(Captured):
        learning.learn(run(replace(RECIPE, channels=CHANNELS, refresh_days=7.0)), TEST_MS, "shop")
    early_ms = found[0].requests.contexts[0].now_ms
    times_ms = timestamps_ms(DATA.events)
    for part in found:
        for context, known in zip(part.requests.contexts, part.known, strict=True):
            refreshed_ms = context.now_ms - (context.now_ms - early_ms) % (7 * DAY_MS)
            assert sum(known.column("popularity").to_pylist()) == (times_ms < refreshed_ms).sum()
    assert len({id(known) for part in found for known in part.known}) == 5
    with pytest.raises(ValueError, match="refresh_days must be positive"):
        replace(RECIPE, refresh_days=0.0)
