"""From logits to what is served: down-sampling undone, watch time, f(length), calibration."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shards.length_adjustment import LengthAdjustment
from tests.training.test_ranking import ITEMS, examples
from training.models.task_links import TaskLinks
from training.task_losses import fitted_tasks, pointwise_losses, thinned
from training.task_serving import calibrated, fitted_lengths
from training.tasks import Task


def test_the_shift_is_the_formula_of_down_sampling() -> None:
    tasks = fitted_tasks(
        (Task(name="a", negatives=0.1),), torch.tensor([[[1.0], [0.0]]]), torch.ones(1, 2, 1)
    )
    logit = torch.linspace(-4, 4, 9).reshape(1, 9, 1)
    q = (logit + tasks.offsets[0]).sigmoid()
    torch.testing.assert_close(tasks.links()(logit), 0.1 * q / ((1 - q) + 0.1 * q))


def test_what_is_rare_is_expected_to_be_before_anything_is_learnt() -> None:
    label_BCT = torch.zeros(10, 100, 2)
    label_BCT[:, 0, 0] = 1.0
    tasks = (Task(name="a", negatives=0.2), Task(name="c", kind="completion", value="c"))
    label_BCT[..., 1] = 0.7
    weight_BCT = torch.ones_like(label_BCT)
    fitted = fitted_tasks(tasks, label_BCT, weight_BCT)
    served_T = fitted.links()(torch.zeros(2))
    torch.testing.assert_close(served_T, torch.tensor([0.01, 0.7]), rtol=0.05, atol=0.0)
    loss_T = pointwise_losses(fitted, torch.zeros_like(label_BCT), label_BCT, weight_BCT)
    for moved in (-0.5, 0.5):
        assert (
            pointwise_losses(fitted, torch.full_like(label_BCT, moved), label_BCT, weight_BCT)[1] > loss_T[1]
        )


def test_even_odds_may_be_where_learning_begins() -> None:
    label_BCT = torch.zeros(10, 100, 1)
    label_BCT[:, 0] = 1.0
    fitted = fitted_tasks((Task(name="a"),), label_BCT, torch.ones_like(label_BCT), at_rate=False)
    torch.testing.assert_close(fitted.links()(torch.zeros(1)), torch.tensor([0.5]))
    (loss,) = pointwise_losses(fitted, torch.zeros_like(label_BCT), label_BCT, torch.ones_like(label_BCT))
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_that_are_all_alike_are_no_certainty(label: float) -> None:
    label_BCT = torch.full((1, 3, 1), label)
    (offset,) = fitted_tasks((Task(name="a"),), label_BCT, torch.ones_like(label_BCT)).offsets
    assert 1.0 < abs(offset) < 3.0


def test_a_thinned_task_is_calibrated_and_would_be_far_off_without() -> None:
    generator = torch.Generator().manual_seed(0)
    label_BCT = (torch.rand(40, 500, 1, generator=generator) < 0.04).float()
    tasks = fitted_tasks((Task(name="a", negatives=0.1),), label_BCT, torch.ones_like(label_BCT))
    weight_BCT = thinned(tasks, label_BCT, torch.ones_like(label_BCT), generator)
    share = weight_BCT[label_BCT == 0].mean().item()
    assert share == pytest.approx(0.1, abs=0.01)
    assert weight_BCT[label_BCT > 0].min() == 1, "no positive is left out"
    logit = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=50)

    def step() -> float:
        optimizer.zero_grad()
        loss = pointwise_losses(tasks, logit.expand_as(label_BCT), label_BCT, weight_BCT).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(step)  # type: ignore[no-untyped-call]
    observed = label_BCT.mean().item()
    assert logit.item() == pytest.approx(0.0, abs=0.05), "that much is known beforehand"
    assert (logit + tasks.offsets[0]).sigmoid().item() > 5 * observed
    assert tasks.links()(logit.reshape(1)).item() == pytest.approx(observed, rel=0.03)


def test_watch_time_and_numbers_come_back_in_their_units() -> None:
    tasks = (
        Task(name="t", kind="watch_time", value="t"),
        Task(name="r", kind="regression", value="r"),
    )
    label_BCT = torch.tensor([[[30.0, 2.0], [60.0, 4.0], [120.0, 6.0]]])
    fitted = fitted_tasks(tasks, label_BCT, torch.ones_like(label_BCT))
    target_BCT = fitted.targets(label_BCT)
    torch.testing.assert_close(target_BCT[0, 1, 0].item(), 0.5)
    logit_BCT = torch.stack([target_BCT[..., 0].logit(), target_BCT[..., 1]], dim=-1)
    torch.testing.assert_close(fitted.links()(logit_BCT), label_BCT)
    best = pointwise_losses(fitted, logit_BCT, label_BCT, torch.ones_like(label_BCT))
    worse = pointwise_losses(fitted, logit_BCT + 0.5, label_BCT, torch.ones_like(label_BCT))
    assert (worse > best).all()


def test_what_is_not_defined_teaches_nothing() -> None:
    label_BCT, weight_BCT = torch.zeros(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    fitted = fitted_tasks((Task(name="a"),), label_BCT, weight_BCT)
    logit_BCT = torch.tensor([[[0.3], [9.0]]])
    loss_T = pointwise_losses(fitted, logit_BCT, label_BCT, weight_BCT)
    torch.testing.assert_close(loss_T, F.softplus(torch.tensor([0.3 + fitted.offsets[0]])))


def test_a_scale_and_a_shift_make_what_is_held_out_calibrated() -> None:
    made = examples()
    links = TaskLinks(["binary", "binary"], [1.0, 1.0], [0.0, 0.0])
    logit_QCT = torch.where(made.label_QCT > 0, 1.0, 0.5) * 3
    after = calibrated(links, (Task(name="a"), Task(name="b")), logit_QCT, made)(logit_QCT)
    defined = made.weight_QCT > 0
    for t in range(2):
        label_D = made.label_QCT[..., t][defined[..., t]]
        assert after[..., t][defined[..., t]].mean().item() == pytest.approx(label_D.mean().item(), abs=0.02)


def test_f_is_the_mean_label_by_length() -> None:
    made = examples()
    length_N = np.array([1.0, 2.0, np.nan])
    task = Task(name="c", kind="completion", value="completion", length="minutes")
    found = fitted_lengths(task, 1, length_N[: len(ITEMS)], made)
    assert found.column == "minutes"
    of_a, of_b, missing = found.expected_of([1.0, 2.0, None])
    # Each was near in one of two requests.
    assert (of_a, of_b) == (pytest.approx(0.5), pytest.approx(0.5))
    assert missing == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lengths": (2.0, 1.0)}, "must grow"),
        ({"lengths": (1.0,)}, "as many"),
        ({"expected": (0.0, 1.0)}, "must be positive"),
        ({"overall": float("nan")}, "must be positive"),
    ],
)
def test_adjustments_that_cannot_be_are_refused(changes: dict[str, object], problem: str) -> None:
    whole: dict[str, object] = {"column": "x", "lengths": (1.0, 2.0), "expected": (0.5, 0.4), "overall": 0.5}
    with pytest.raises(ValueError, match=problem):
        LengthAdjustment(**{**whole, **changes})  # type: ignore[arg-type]
