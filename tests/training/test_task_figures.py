"""Figures of tasks: calibration, curves, errors, and the report of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from deploy.task_report import TaskReport, as_document, draw, render
from training.evaluation.task_figures import probability_figures, reliability_curve, value_figures

RNG = np.random.default_rng(0)
TRUE_N = RNG.uniform(0, 0.4, 5000)
LABEL_N = (RNG.uniform(size=5000) < TRUE_N).astype(np.float64)
GROUP_N = np.arange(5000) // 50


def test_true_probabilities_are_calibrated_and_doubled_ones_are_not() -> None:
    right = probability_figures(LABEL_N, TRUE_N, GROUP_N)
    doubled = probability_figures(LABEL_N, 2 * TRUE_N, GROUP_N)
    assert right.ece < 0.02 < 0.15 < doubled.ece
    assert right.predicted == pytest.approx(right.observed, abs=0.02)
    assert right.auc == pytest.approx(doubled.auc)
    assert 0.6 < right.gauc < right.auc + 0.1
    assert right.log_loss < doubled.log_loss


def test_bins_of_the_curve_are_as_large_and_hold_every_example() -> None:
    curve = reliability_curve(LABEL_N, TRUE_N, bins=8)
    assert [one.examples for one in curve] == [625] * 8
    assert [one.predicted for one in curve] == sorted(one.predicted for one in curve)
    assert len(reliability_curve(LABEL_N[:3], TRUE_N[:3])) == 3


def test_errors_of_numbers_stand_beside_those_of_their_mean() -> None:
    found = value_figures(np.array([1.0, 2.0, 6.0]), np.array([1.0, 3.0, 5.0]))
    assert found.mean_absolute_error == pytest.approx(2 / 3)
    assert found.root_mean_square_error == pytest.approx(math.sqrt(2 / 3))
    assert found.absolute_error_of_mean == pytest.approx(2.0)


@pytest.mark.parametrize("predictions", [np.zeros(0), np.array([0.5, np.nan])])
def test_what_has_no_figures_is_refused(predictions: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"at least one|not finite"):
        probability_figures(np.zeros(len(predictions)), predictions, np.zeros(len(predictions), np.int64))


def test_a_report_is_a_table_a_document_and_a_picture(tmp_path: Path) -> None:
    never = probability_figures(np.zeros(3), np.full(3, 0.1), np.zeros(3, np.int64))
    report = TaskReport(
        dataset="d",
        split="test",
        release="r@1",
        requests=100,
        queries_are_proxies=True,
        figures={
            "buy": probability_figures(LABEL_N, TRUE_N, GROUP_N),
            "never": never,
            "amount": value_figures(LABEL_N, TRUE_N),
        },
    )
    assert render(report).row_count == 3
    assert "proxies" in report.title
    document = json.loads(json.dumps(as_document(report), allow_nan=False))
    assert document["figures"]["never"]["auc"] is None
    assert len(document["figures"]["buy"]["curve"]) == 10
    draw(report, tmp_path / "tasks.png")
    assert (tmp_path / "tasks.png").stat().st_size > 1000
