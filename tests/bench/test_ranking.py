"""`make bench-ranking` in small: the made-up shop, a peer of each kind and one of ours."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.bench.ranking import checks_of, measure, overall
from tests.bench.ranking_calibration import calibration_of
from tests.bench.ranking_data import RankingData, ranking_data
from tests.bench.ranking_models import Compared
from tests.bench.ranking_runs import all_judged, judged, ndcg_at_10
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.ranking import RankingSet
from training.task_losses import FittedTasks

assert RECIPE.ranker is not None
RANKER = RECIPE.ranker
PEER, OURS = "LightGBM LambdaMART", "shared bottom"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RankingData:
    return ranking_data(RECIPE, shop_dataset(), tmp_path_factory.mktemp("bench"), queries=150, tested=150)


def test_every_kind_of_model_learns_the_shop(data: RankingData) -> None:
    (figures,) = measure(data, RANKER, ["logistic regression", PEER, "LightGBM, binary", OURS], 1)
    for found in figures["models"].values():
        assert found["ndcg_10"]["mean"] > 0.5
        assert found["auc"]["mean"] > 0.7
        assert 0 <= found["ece"]["mean"] < 0.2
        assert found["p50_ms"]["mean"] > 0
    assert figures["best"] == OURS
    gain, of_auc, calibration = checks_of("shop", figures)
    theirs = max(figures["models"][name]["ndcg_10"]["mean"] for name in (PEER, "LightGBM, binary"))
    assert gain.value == pytest.approx(figures["models"][OURS]["ndcg_10"]["mean"] - theirs, abs=2e-5)
    assert gain.ok == (gain.value >= 0)
    assert of_auc.name.startswith(f"shop: auc of {OURS} above")
    assert calibration.value == pytest.approx(abs(figures["calibration"]["calibrated"] - 1))
    others = {"shop": figures, "cafe": figures, "online_retail": figures}
    assert [check.value for check in overall(others)] == [2 * (gain.value > 0)]


def test_processes_find_what_one_does(data: RankingData) -> None:
    jobs = [("logistic regression", 0), (OURS, 0)]
    alone, together = (list(all_judged(RANKER, data, jobs, processes)) for processes in (1, 2))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.ndcg, other.ndcg)
        assert one.figures["log_loss"] == other.figures["log_loss"]


def _blind(_data: RankingData, seed: int):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return lambda examples: rng.normal(size=examples.present_QC.shape)


def test_a_model_that_knows_nothing_is_shown_as_such(data: RankingData) -> None:
    found = judged(Compared(ours=True, fit=_blind), data, 0).figures
    assert found["ndcg_10"] < 0.5
    assert found["auc"] == pytest.approx(0.5, abs=0.1)


def test_all_that_was_taken_counts_for_ndcg(data: RankingData) -> None:
    one: RankingSet = data.test[torch.tensor([0])]
    label_QCT = torch.zeros_like(one.label_QCT)
    label_QCT[0, [1, 2], 0] = 1.0
    score_QC = -torch.arange(one.row_QC.shape[1]).double()[None]
    places = 1 / np.log2([2, 3, 4])
    assert ndcg_at_10(score_QC, replace(one, label_QCT=label_QCT)) == pytest.approx(
        places[1:].sum() / places[:2].sum()
    )
    assert ndcg_at_10(score_QC, replace(one, label_QCT=torch.zeros_like(label_QCT))).tolist() == [0.0]


def test_down_sampling_is_undone_by_the_exported_shift(data: RankingData) -> None:
    """A model whose odds are the true ones of a fifth of the negatives."""
    first = replace(RECIPE.tasks[0], negatives=0.2)
    tasks = FittedTasks(tasks=(first,), offsets=(0.0,), spreads=(1.0,))

    def rate(learned: RankingData, _seed: int):  # type: ignore[no-untyped-def]
        present_QC = learned.train.present_QC
        share = float((learned.train.label_QCT[..., 0][present_QC] > 0).double().mean())
        return lambda examples: np.full(examples.present_QC.shape, np.log(share / (1 - share) / 0.2))

    figures = calibration_of(Compared(ours=True, fit=rate), replace(data, tasks=tasks))
    assert figures["exact"] == pytest.approx(1.0, abs=0.01)
    assert figures["calibrated"] == pytest.approx(1.0, abs=0.01)
    assert figures["uncorrected"] > 2.0
    assert figures["taken"] == pytest.approx(float((data.train.label_QCT[..., 0] > 0).sum()))


def test_the_last_requests_are_held_out(data: RankingData) -> None:
    assert (len(data.train), len(data.held_out)) == (120, 30)
    for part in (data.train, data.held_out, data.test):
        assert part.cross_QCK.shape[-1] == len(data.inputs.cross)
