"""A whole recipe on a made-up shop: what it writes serves, agrees with training and can be made again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.bundle import open_bundle
from shards.cross_kinds import HistoryCount
from shards.forward_index import ForwardIndex
from shards.gate_model import open_gate
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.release import GateRules
from shards.search_context import SearchContext
from shards.servable import open_servable
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import FIT, RECIPE, TEXT, gate
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset, timestamps_ms
from training.embedding import hard_rows
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import evaluate, open_cascade, ranks_by_gate, retrieve
from training.evaluation.report import HYBRID, RANKED, Ints, figures
from training.feature_groups import feature_groups
from training.gate import GateTraining
from training.gate_labels import page_gains
from training.hard_negatives import HardNegatives
from training.learning import learn
from training.pipeline import Trained, train
from training.recipe import Recipe
from training.release_writing import models_of
from training.run import Run
from training.snapshot import requests_between, snapshot


def run(root: Path, recipe: Recipe = RECIPE, *, seed: int = 3, dataset: Dataset | None = None) -> Trained:
    destination = Destination(root=root, prefix="shop", version="1")
    return train(Run(recipe=recipe, dataset=dataset or shop_dataset(), seed=seed, gate=gate), destination)


def ungated(**changes: Any) -> Recipe:
    return replace(RECIPE, gate=GateRules(), gate_model=None, **changes)


TABLES = tuple(c for c in RECIPE.channels if c.source not in ("two_tower", "lexical"))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained(models_dir: Path) -> Trained:
    return run(models_dir)


def test_every_bundle_opens_and_answers_its_goldens(trained: Trained, models_dir: Path) -> None:
    models = models_of(RECIPE, Destination(root=models_dir, prefix="shop", version="1"))
    gate = trained.release.gate.model
    assert gate is not None
    assert {*trained.release.models(), gate} == set(models)
    for model in trained.release.models():
        bundle = open_bundle(models_dir / model.model / model.version, expect=model)
        tolerance = bundle.manifest.tolerance
        golden = read_golden(bundle.file(GOLDEN_FILE))
        assert len(golden.contexts) == 8
        replay(open_servable(bundle, "cpu"), golden, tolerance.rtol, tolerance.atol)


def test_the_gate_opens_and_knows_the_queries_of_the_log(trained: Trained, models_dir: Path) -> None:
    model = trained.release.gate.model
    assert model is not None
    gate = open_gate(models_dir / model.model / model.version, model)
    seen = gate.facts(SearchContext(query="Mug", now_ms=0))
    never_seen = gate.facts(SearchContext(query="spaceship", now_ms=0))
    assert seen.query_takes > 10 > never_seen.query_takes == 0
    assert 0 < seen.top_share < 0.6, "each colour has its buyers"
    assert {"gate auc_before", "gate auc_after"} <= trained.figures.keys()


def test_a_gate_can_learn_by_how_much_gated_channels_better_the_page(tmp_path: Path) -> None:
    channels = tuple(replace(c, gated=c.name not in ("lexical", "popular")) for c in RECIPE.channels)
    gate_model = GateTraining(label="page", searches=200, depths=(20,), fit=FIT)
    recipe = replace(RECIPE, channels=channels, gate_model=gate_model)
    trained = run(tmp_path, recipe)
    cascade = open_cascade(trained.release, tmp_path)
    judged = judged_queries(shop_dataset(), "test", limit=60, history_limit=200)
    ranks = [
        ranks_by_gate(cascade, query.context, retrieve(cascade, query.context), query.relevant)
        for query in judged
    ]
    closed, opened = (
        discounts(evaluate(cascade, judged, gate=lambda *_, by=by: by).by_ranking[RANKED])
        for by in (False, True)
    )
    assert page_gains(ranks) == pytest.approx(np.maximum(opened - closed, 0.0))
    assert trained.figures["gate gain"] == pytest.approx((opened - closed).clip(0.0).mean(), abs=0.1)
    assert trained.figures["gate gain"] > 0
    assert trained.release.gate.model is not None
    model = trained.release.gate.model
    assert open_gate(tmp_path / model.model / model.version, model).params.label == "page"


def discounts(ranks: Ints) -> NDArray[np.float64]:
    """Return the NDCG@10 of queries whose one relevant item has these ranks, 0 where it was not found."""
    return np.array([1 / math.log2(rank + 1) if 0 < rank <= 10 else 0.0 for rank in ranks.tolist()])


def test_the_cascade_learns_whose_favourite_colour_is_which(trained: Trained, models_dir: Path) -> None:
    judged = judged_queries(shop_dataset(), "test", limit=0, history_limit=200)
    ranks = evaluate(open_cascade(trained.release, models_dir), judged, gate=gate).by_ranking
    assert figures(ranks["lexical"]).mrr_10 < 0.6
    assert figures(ranks[RANKED]).mrr_10 > 0.9


def test_two_runs_with_one_seed_write_equal_scores(
    trained: Trained, models_dir: Path, tmp_path: Path
) -> None:
    again = run(tmp_path)
    assert again == trained
    for model in trained.release.models():
        first, second = (
            read_golden(root / model.model / model.version / GOLDEN_FILE) for root in (models_dir, tmp_path)
        )
        assert first.item_ids == second.item_ids
        for left, right in zip(first.scores, second.scores, strict=True):
            assert all(np.array_equal(left[name], right[name]) for name in left)


def test_a_pre_ranker_reads_only_the_groups_of_features_that_are_kept(tmp_path: Path) -> None:
    assert RECIPE.pre_ranker is not None
    few = replace(RECIPE.pre_ranker, model=replace(RECIPE.pre_ranker.model, kept_groups=3))
    trained = run(tmp_path, replace(RECIPE, pre_ranker=few))
    pinned = [scorer for scorer in (trained.release.pre_ranker, trained.release.ranker) if scorer]
    first, second = (open_bundle(tmp_path / s.model.model / s.model.version, expect=s.model) for s in pinned)
    assert first.spec is not None
    assert second.spec is not None
    assert 0 < len(first.spec.cross_names) < len(second.spec.cross_names)
    weights = {n: w for n, w in first.manifest.metrics.items() if n.startswith("weight of ")}
    assert len(weights) == len(feature_groups(second.spec))
    assert len(feature_groups(first.spec)) == 3
    tolerance = first.manifest.tolerance
    replay(open_servable(first, "cpu"), read_golden(first.file(GOLDEN_FILE)), tolerance.rtol, tolerance.atol)
    judged = judged_queries(shop_dataset(), "test", limit=60, history_limit=200)
    ranks = evaluate(open_cascade(trained.release, tmp_path), judged, gate=gate).by_ranking
    assert figures(ranks[RANKED]).mrr_10 > 0.8


def test_channels_alone_make_a_release(tmp_path: Path) -> None:
    trained = run(tmp_path, ungated(channels=TABLES, tasks=(), pre_ranker=None, ranker=None))
    assert trained.release.scorers() == ()
    assert trained.figures == {}
    assert {path.name for path in tmp_path.iterdir()} == {f"shop-{c.name}" for c in TABLES}
    judged = judged_queries(shop_dataset(), "test", limit=20, history_limit=200)
    ranks = evaluate(open_cascade(trained.release, tmp_path), judged, gate=gate).by_ranking
    assert list(ranks) == [*(c.name for c in TABLES), HYBRID]
    assert figures(ranks[HYBRID]).recall_100 > 0.9


def test_a_release_needs_no_queries(tmp_path: Path) -> None:
    shop = shop_dataset()
    silent = replace(shop, queries=shop.queries.slice(0, 0))
    channels = tuple(c for c in TABLES if c.name in ("neighbours", "own", "popular"))
    recipe = ungated(channels=channels, tasks=(), pre_ranker=None, ranker=None)
    release = run(tmp_path, recipe, dataset=silent).release
    assert release.as_of_ms == timestamps_ms(shop.events).max() + 1, "all that was known"
    golden = read_golden(tmp_path / "shop-neighbours" / "1" / GOLDEN_FILE)
    assert {context.query for context in golden.contexts} == {""}
    assert all(context.user.history.item_ids for context in golden.contexts)
    assert all(golden.item_ids), "who acted is told what others also took"
    with pytest.raises(ValueError, match="both sides"):
        run(tmp_path / "more", ungated(), dataset=silent)


@pytest.mark.parametrize("kept", ["pre_ranker", "ranker"])
def test_one_ranker_does(tmp_path: Path, kept: str) -> None:
    lone: dict[str, Any] = {"pre_ranker": None, "ranker": None} | {kept: getattr(RECIPE, kept)}
    features = replace(RECIPE.features, ranking=(*TEXT, HistoryCount(name="own_count")))
    trained = run(tmp_path, ungated(channels=TABLES, features=features, **lone))
    assert [stage.name.lower() for stage, _ in trained.release.scorers()] == [
        {"pre_ranker": "pre_ranking", "ranker": "ranking"}[kept]
    ]
    assert list(trained.figures) == [f"{kept.replace('_', '-')} NDCG@10"]
    judged = judged_queries(shop_dataset(), "test", limit=20, history_limit=200)
    ranks = evaluate(open_cascade(trained.release, tmp_path), judged, gate=gate).by_ranking
    assert len(ranks) == len(TABLES) + 2


def test_channels_for_rankers_know_nothing_of_the_rankers_queries(tmp_path: Path) -> None:
    late = replace(RECIPE, ranking_days=1000.0)
    with pytest.raises(ValueError, match="both sides"):
        run(tmp_path, late)


def test_a_version_is_never_written_twice(trained: Trained, models_dir: Path) -> None:
    assert trained.release.version == "1"
    with pytest.raises(FileExistsError):
        run(models_dir, replace(RECIPE, two_tower=replace(RECIPE.two_tower, fit=replace(FIT, epochs=1))))


def test_what_rankers_reject_is_known_of_the_newest_requests() -> None:
    dataset = shop_dataset()
    hard = HardNegatives(per_positive=2, source="rejected", kept=5)
    recipe = replace(RECIPE, two_tower=replace(RECIPE.two_tower, hard=hard))
    test_ms = known_until_ms(dataset)
    learned = learn(Run(recipe=recipe, dataset=dataset, seed=3, gate=gate), test_ms, "shop")
    assert learned.rankers is not None
    rejected_QR = learned.rankers.rejected_QR
    assert rejected_QR is not None
    assert rejected_QR.shape == (len(learned.requests), 5)
    taken = ForwardIndex(dataset.items).rows_of(learned.requests.item_ids)
    assert not (rejected_QR.numpy() == taken[:, np.newaxis]).any(), "what was taken is no negative"
    assert (rejected_QR >= 0).any(dim=1).float().mean() > 0.9
    late = requests_between(dataset, 0, test_ms, newest=1000, history_limit=20)
    row_QR = hard_rows(hard, snapshot(dataset, test_ms), late, rejected_QR)
    assert row_QR is not None
    assert len(row_QR) == len(late) > len(rejected_QR)
    assert (row_QR[-len(rejected_QR) :] == rejected_QR).all()
    assert (row_QR[: -len(rejected_QR)] == -1).all()
