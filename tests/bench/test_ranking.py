"""`make bench-ranking` in small: the made-up shop, a peer of each kind and one of ours."""

import numpy as np
import pytest

from tests.bench.ranking import checks_of, figures_of, measure
from tests.bench.ranking_data import RankingData, ranking_data
from tests.bench.ranking_models import Compared, compared
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE

assert RECIPE.ranker is not None
MODELS = compared(RECIPE.ranker)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RankingData:
    return ranking_data(RECIPE, shop_dataset(), tmp_path_factory.mktemp("bench"), queries=150, tested=150)


def test_every_kind_of_model_learns_the_shop(data: RankingData) -> None:
    chosen = ("logistic regression", "LightGBM LambdaMART", "LightGBM, binary", "shared bottom")
    (figures,) = measure(data, {name: MODELS[name] for name in chosen}, 1)
    for found in figures.values():
        assert found["ndcg_10"]["mean"] > 0.5
        assert found["auc"]["mean"] > 0.7
        assert 0 <= found["ece"]["mean"] < 0.2
        assert found["p50_ms"]["mean"] > 0
    gain, calibrated = checks_of("shop", figures)
    ours, peer = (figures[name]["ndcg_10"]["mean"] for name in ("shared bottom", "LightGBM LambdaMART"))
    assert gain.ok == (ours >= peer)
    assert calibrated.name.startswith("shop: predicted over taken")


def test_a_model_that_knows_nothing_is_shown_as_such(data: RankingData) -> None:
    def blind(_data: RankingData, seed: int):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(seed)
        return lambda examples: rng.normal(size=examples.present_QC.shape)

    found = figures_of(Compared(ours=True, fit=blind), data, 0)
    assert found["ndcg_10"] < 0.5
    assert found["auc"] == pytest.approx(0.5, abs=0.1)


def test_the_last_requests_are_held_out(data: RankingData) -> None:
    assert (len(data.train), len(data.held_out)) == (120, 30)
    for part in (data.train, data.held_out, data.test):
        assert part.cross_QCK.shape[-1] == len(data.inputs.cross)
