"""The training loop: early stopping, observers, determinism, failures."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.trainer import (
    Advanced,
    EpochEnded,
    FitConfig,
    PhaseStarted,
    Seeded,
    fit,
    shuffled_batches,
)

X = torch.linspace(-1, 1, 32).unsqueeze(1)


def regression(model: nn.Linear, batch: Tensor) -> Tensor:
    error: Tensor = model(X[batch]) - 3 * X[batch]
    return error.square().mean()


def trained(seed: int) -> tuple[nn.Linear, list[object]]:
    random = Seeded(seed=seed).apply()
    model = nn.Linear(1, 1)
    heard: list[object] = []
    fit(
        "line",
        model,
        FitConfig(epochs=3, batch_size=8, learning_rate=0.1),
        batches=lambda: shuffled_batches(len(X), 8, random),
        loss=lambda batch: regression(model, batch),
        observe=heard.append,
    )
    return model, heard


def test_two_runs_with_one_seed_are_bitwise_equal_and_another_seed_differs() -> None:
    weights = [trained(seed)[0].weight.item() for seed in (1, 1, 2)]
    assert weights[0] == weights[1] != weights[2]


def test_tells_the_observer_every_step_and_epoch() -> None:
    _, heard = trained(0)
    assert sum(isinstance(event, Advanced) for event in heard) == 3 * 4
    phases = [event for event in heard if isinstance(event, PhaseStarted)]
    assert [(event.phase, event.total) for event in phases] == [(f"line, epoch {n}", 4) for n in (1, 2, 3)]
    epochs = [event for event in heard if isinstance(event, EpochEnded)]
    assert [event.epoch for event in epochs] == [1, 2, 3]
    assert epochs[2].loss < epochs[0].loss
    assert all(math.isnan(event.metric) for event in epochs)


def test_stops_after_patience_and_keeps_the_best_epoch() -> None:
    model = nn.Linear(1, 1)
    metrics = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    seen: list[float] = []

    def evaluate() -> float:
        assert not model.training
        seen.append(model.weight.item())
        return next(metrics)

    fitted = fit(
        "line",
        model,
        FitConfig(epochs=9, patience=2),
        batches=lambda: [torch.arange(len(X))],
        loss=lambda batch: regression(model, batch),
        evaluate=evaluate,
    )
    assert (fitted.best_epoch, fitted.best_metric, fitted.epochs) == (2, 0.5, 4)
    assert model.weight.item() == seen[1]
    assert not model.training


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="loss of line is nan"):
        fit(
            "line",
            model,
            FitConfig(),
            batches=lambda: [torch.arange(4)],
            loss=lambda batch: regression(model, batch) * math.nan,
        )


def test_batches_cover_everything_and_leave_out_a_lone_last_one() -> None:
    batches = shuffled_batches(9, 4, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(shuffled_batches(10, 4, torch.Generator().manual_seed(0))[-1]) == 2
    assert [len(batch) for batch in shuffled_batches(1, 4, torch.Generator())] == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"precision": "half"},
        {"last_rate": 0.0},
        {"warmup_steps": -1},
    ],
)
def test_settings_that_cannot_train_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        FitConfig(**wrong)


def test_the_learning_rate_rises_over_the_first_steps_and_falls_to_its_last_share() -> None:
    config = FitConfig(epochs=10, learning_rate=0.1, warmup_steps=4, last_rate=0.2)
    rates = [config.rate_at(step, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.025)
    assert max(rates) == rates[3] == pytest.approx(0.1, rel=0.05)
    assert rates[100] == pytest.approx(0.02)
    assert {FitConfig(learning_rate=0.1).rate_at(step, 10) for step in range(100)} == {0.1}
