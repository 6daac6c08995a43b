"""What the parts of `make bench-quality` make of data and of several seeds, without training anything."""

import sys
from pathlib import Path

import pytest

from shards.search_context import History, SearchContext, UserState
from tests.bench.peer_libraries import used_by
from tests.bench.quality_peers import events_of
from tests.bench.quality_retrieval import without_rankers
from tests.bench.quality_run import QualityRun
from tests.bench.quality_staleness import a_day_old
from tests.bench.spread import spread_of, spread_of_each
from training.datasets.amazon_beauty import dataset_of
from training.datasets.statistics import DAY_MS
from training.evaluation.next_items import next_items
from training.recipes import RECIPES


def test_figures_over_seeds_have_a_mean_and_a_deviation() -> None:
    assert spread_of([1.0, 2.0, 3.0]) == {"mean": 2.0, "deviation": 1.0, "runs": [1.0, 2.0, 3.0]}
    assert spread_of([0.5])["deviation"] == 0.0
    runs = [{"recall": 0.1, "ndcg": 0.0}, {"recall": 0.3, "ndcg": 0.0}]
    assert spread_of_each(runs)["recall"]["mean"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        QualityRun(data_dir=Path(), seeds=0)


def test_a_vector_of_yesterday_knows_nothing_of_the_last_day() -> None:
    history = History(("a", "b", "c"), ("review",) * 3, (7 * DAY_MS, 8 * DAY_MS, 9 * DAY_MS))
    context = SearchContext(user=UserState(user_id="u", history=history), now_ms=10 * DAY_MS)
    assert a_day_old(context).user.history.item_ids == ("a", "b")
    assert context.user.history is history


def test_peers_learn_from_what_came_before_the_test_in_its_order() -> None:
    data = dataset_of("two", [("u", ["c", "a", "b"]), ("v", ["b", "c", "a", "c"])], {})
    events = events_of(data, next_items(data, "test", history_limit=9))
    # v took c before, so that nothing new is left to ask v for.
    assert events["user"].tolist() == [0, 0]
    assert events["item"].tolist() == [2, 0]
    assert events["items"] == 3


def test_retrieval_is_measured_by_all_channels_of_the_recipe() -> None:
    recipe = without_rankers(RECIPES["online_retail"])
    assert recipe.channels == RECIPES["online_retail"].channels
    assert recipe.judges
    assert not recipe.ranks


def test_a_process_tells_what_it_took_and_why_it_failed(tmp_path: Path) -> None:
    busy = "block = bytearray(64 << 20); print(sum(range(10**6)))"
    used = used_by([sys.executable, "-c", busy], log=tmp_path / "log")
    assert used.peak_memory_bytes > 64 << 20
    assert used.processor_s > 0
    with pytest.raises(RuntimeError, match="no such thing"):
        used_by([sys.executable, "-c", "raise SystemExit('no such thing')"], log=tmp_path / "log")
