"""The one training loop: epochs over batches, a metric after each, the best epoch's parameters kept.

Says what happens through an `Observer`; printing and progress bars belong to the caller.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How long and how fast to train."""

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    patience: int = 2
    """Epochs without a better metric before training stops."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 1:
            raise ValueError("epochs, batch_size and patience must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """A phase of a recipe began; `total` steps are expected, 0 when unknown."""

    phase: str
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """The current phase went on by some steps."""

    steps: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """A model finished an epoch; `metric` is NaN when nothing was evaluated."""

    model: str
    epoch: int
    loss: float
    metric: float
    seconds: float


Observer = Callable[[PhaseStarted | Advanced | EpochEnded], None]
"""Hears what training does."""


def ignore(event: PhaseStarted | Advanced | EpochEnded) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `fit` found: the epoch whose parameters the model now has, and its metric."""

    best_epoch: int
    best_metric: float
    epochs: int


@dataclass(frozen=True, slots=True)
class Seeded:
    """Fixes what makes two runs differ: the global seed, the algorithms and the number of threads."""

    seed: int
    threads: int = 1
    """One is as fast as two for models this small, and far faster where cores are shared."""

    def apply(self) -> torch.Generator:
        """Set torch up and return a generator for the caller's own draws."""
        torch.manual_seed(self.seed)
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory that it did not write; filling it would cost a tenth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_num_threads(self.threads)
        return torch.Generator().manual_seed(self.seed)


def shuffled_batches(size: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the numbers below `size` in random order, cut into batches; a last single one is left out."""
    batches = torch.split(torch.randperm(size, generator=generator), batch_size)
    return [batch for batch in batches if len(batch) > 1 or size == 1]


def fit(
    name: str,
    model: nn.Module,
    config: FitConfig,
    *,
    batches: Callable[[], Sequence[Tensor]],
    loss: Callable[[Tensor], Tensor],
    evaluate: Callable[[], float] | None = None,
    observe: Observer = ignore,
) -> Fitted:
    """Train in place, stop early, and leave the model in evaluation mode with its best parameters.

    `batches` gives an epoch's batches of example numbers, `loss` the scalar loss of one, and `evaluate` a
    metric where more is better; without it every epoch runs and the last one stays. Raises
    FloatingPointError when the loss is not finite.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
    )
    best, best_state = Fitted(best_epoch=0, best_metric=-math.inf, epochs=0), None
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        epoch_batches = batches()
        observe(PhaseStarted(phase=f"{name}, epoch {epoch}", total=len(epoch_batches)))
        mean_loss = _run_epoch(name, model, optimizer, epoch_batches, loss, observe)
        metric = _evaluate(model, evaluate)
        seconds = time.perf_counter() - started
        observe(EpochEnded(model=name, epoch=epoch, loss=mean_loss, metric=metric, seconds=seconds))
        if evaluate is None or metric > best.best_metric:
            best = Fitted(best_epoch=epoch, best_metric=metric, epochs=epoch)
            best_state = copy.deepcopy(model.state_dict()) if evaluate else None
        elif epoch - best.best_epoch >= config.patience:
            break
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    return Fitted(best_epoch=best.best_epoch, best_metric=best.best_metric, epochs=epoch)


def _run_epoch(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    observe: Observer,
) -> float:
    model.train()
    total, steps = 0.0, 0
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss of {name} is {value.item()} at step {steps + 1}")
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        total, steps = total + value.item(), steps + 1
        observe(Advanced())
    return total / max(steps, 1)


def _evaluate(model: nn.Module, evaluate: Callable[[], float] | None) -> float:
    if evaluate is None:
        return math.nan
    model.eval()
    with torch.inference_mode():
        return evaluate()
