"""The one training loop: epochs over batches, a metric after each, the best epoch's parameters kept.

Where it keeps checkpoints it goes on from the last one, to the same parameters: `training.checkpoints`.
Says what happens through an `Observer`; printing and progress bars belong to the caller.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.checkpoints import NOT_KEPT, Checkpoint, Progress
from training.share import current_share


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How long and how fast to train."""

    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    patience: int = 2
    """Epochs without a better metric before training stops."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to its full value."""
    last_rate: float = 1.0
    """The share of the learning rate that is left when the last epoch ends; it falls in a line."""
    optimizer: str = "adamw"
    """Or "sgd", whose steps are small where there is little to learn from: for a few minutes' examples."""
    precision: str = "float32"
    """"bfloat16" mixes precisions on a GPU, and changes nothing on a CPU."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 1:
            raise ValueError("epochs, batch_size and patience must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be positive")
        if self.warmup_steps < 0 or not 0 < self.last_rate <= 1:
            raise ValueError("warmup_steps must not be negative and last_rate must be a share above 0")
        if self.optimizer not in ("adamw", "sgd"):
            raise ValueError(f"optimizer must be adamw or sgd, not {self.optimizer!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, not {self.precision!r}")

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0 over all epochs."""
        risen = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = step / (self.epochs * steps_per_epoch)
        return self.learning_rate * risen * (1.0 - (1.0 - self.last_rate) * done)


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


def drawn_batches(weight_E: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return as many example numbers as there are weights, drawn with those, cut into batches."""
    drawn = torch.multinomial(weight_E, len(weight_E), replacement=True, generator=generator)
    return [batch for batch in torch.split(drawn, batch_size) if len(batch) > 1 or len(weight_E) == 1]


def fit(
    name: str,
    model: nn.Module,
    config: FitConfig,
    *,
    batches: Callable[[], Sequence[Tensor]],
    loss: Callable[[Tensor], Tensor],
    evaluate: Callable[[], float] | None = None,
    observe: Observer = ignore,
    checkpoint: Checkpoint = NOT_KEPT,
) -> Fitted:
    """Train in place, stop early, and leave the model in evaluation mode with its best parameters.

    `batches` gives an epoch's batches of example numbers, `loss` the scalar loss of one, and `evaluate` a
    metric where more is better; without it every epoch runs and the last one stays. Goes on from the
    `checkpoint` where there is one. Raises FloatingPointError when the loss is not finite.
    """
    loop = _Loop(name, model, config, loss, evaluate, observe, checkpoint)
    while not loop.ended():
        loop.run_epoch(batches)
    return loop.finish()


class _Loop:
    """The loop between two steps; `progress` is all of it that a checkpoint holds."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        config: FitConfig,
        loss: Callable[[Tensor], Tensor],
        evaluate: Callable[[], float] | None,
        observe: Observer,
        checkpoint: Checkpoint,
    ) -> None:
        self.name, self.model, self.config = name, model, config
        self.loss, self.evaluate = loss, evaluate
        self.observe, self.checkpoint, self.share = observe, checkpoint, current_share()
        kind = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.AdamW
        self.optimizer: torch.optim.Optimizer = kind(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.progress = checkpoint.load(model, self.optimizer) or Progress()
        self.saved_s = time.monotonic()

    def ended(self) -> bool:
        """Say whether no epoch is left, or none was the best one within the patience."""
        progress = self.progress
        done = progress.epoch - 1
        impatient = self.evaluate is not None and done - progress.best_epoch >= self.config.patience
        return progress.finished or done >= self.config.epochs or impatient

    def run_epoch(self, batches: Callable[[], Sequence[Tensor]]) -> None:
        """Take the steps that are left of the epoch, and keep the parameters if they are the best so far."""
        started, progress = time.perf_counter(), self.progress
        if not progress.batches:
            progress.batches = batches()
        self.observe(PhaseStarted(phase=f"{self.name}, epoch {progress.epoch}", total=len(progress.batches)))
        if progress.step:
            self.observe(Advanced(steps=progress.step))
        self.model.train()
        while progress.step < len(progress.batches):
            progress.total_loss += self._step(progress.batches[progress.step])
            progress.step += 1
            self.observe(Advanced())
            self._save_if_due()
        ended = EpochEnded(
            model=self.name,
            epoch=progress.epoch,
            loss=progress.total_loss / max(progress.step, 1),
            metric=self.share.agreed(_evaluate(self.model, self.evaluate)),
            seconds=time.perf_counter() - started,
        )
        self._end_epoch(ended)
        self.observe(ended)

    def _step(self, batch: Tensor) -> float:
        per_epoch = len(self.progress.batches)
        taken = (self.progress.epoch - 1) * per_epoch + self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate_at(taken, per_epoch)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.model, self.config.precision):
            value = self.loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        value = self.share.average(self.model, value)
        if not torch.isfinite(value):
            step = self.progress.step + 1
            raise FloatingPointError(f"the loss of {self.name} is {value.item()} at step {step}")
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        return value.item()

    def _end_epoch(self, ended: EpochEnded) -> None:
        progress = self.progress
        if self.evaluate is None or ended.metric > progress.best_metric:
            progress.best_epoch, progress.best_metric = ended.epoch, ended.metric
            progress.best = copy.deepcopy(self.model.state_dict()) if self.evaluate else None
        progress.epoch, progress.step, progress.total_loss, progress.batches = ended.epoch + 1, 0, 0.0, ()
        self._save_if_due()

    def finish(self) -> Fitted:
        """Give the model its best parameters."""
        progress = self.progress
        if progress.best is not None:
            self.model.load_state_dict(progress.best)
        self.model.eval()
        if not progress.finished:
            progress.finished = True
            self._save()
        return Fitted(
            best_epoch=progress.best_epoch, best_metric=progress.best_metric, epochs=progress.epoch - 1
        )

    def _save_if_due(self) -> None:
        if self.checkpoint.due(self.saved_s):
            self._save()

    def _save(self) -> None:
        if self.share.leads:
            self.checkpoint.save(self.model, self.optimizer, self.progress)
        self.saved_s = time.monotonic()


def autocast(model: nn.Module, precision: str) -> torch.autocast:
    """Return the context of a step: bfloat16 where asked and where a GPU computes, else as it is.

    Bfloat16 has the range of float32, so that losses need no scaling (Kalamkar et al.,
    2019, arXiv 1905.12322).
    Parameters stay float32.
    """
    device = next(model.parameters()).device.type
    enabled = precision == "bfloat16" and device == "cuda"
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def _evaluate(model: nn.Module, evaluate: Callable[[], float] | None) -> float:
    if evaluate is None:
        return math.nan
    model.eval()
    with torch.inference_mode():
        return evaluate()
