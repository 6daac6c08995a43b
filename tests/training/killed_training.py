"""A small training that keeps checkpoints, in a process for a test to kill: `python -m … FOLDER OUT`."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoints import Checkpoints
from training.trainer import (
    Advanced,
    EpochEnded,
    FitConfig,
    Fitted,
    PhaseStarted,
    Seeded,
    fit,
    shuffled_batches,
)

STEPS = 4 * 6
"""Epochs by batches of an epoch."""

Event = PhaseStarted | Advanced | EpochEnded


def train(checkpoints: Checkpoints, observe: Callable[[Event], None]) -> tuple[dict[str, Tensor], Fitted]:
    """Return the parameters; dropout, negatives, batches and the best epoch all depend on chance."""
    generator = Seeded(seed=5).apply()
    first = nn.Linear(3, 8)
    model = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    x_ND = torch.randn(48, 3, generator=generator)

    def loss(batch_B: Tensor) -> Tensor:
        noise_B = torch.rand(len(batch_B), generator=generator)
        error: Tensor = model(x_ND[batch_B]).squeeze(1) - x_ND[batch_B].sum(dim=1) - 0.1 * noise_B
        return error.square().mean()

    def evaluate() -> float:
        # The best epoch is none of the last, so that a resumed run has to remember its parameters.
        return -float(first.weight.norm())

    fitted = fit(
        "line",
        model,
        FitConfig(epochs=4, batch_size=8, learning_rate=0.05, patience=9),
        batches=lambda: shuffled_batches(len(x_ND), 8, generator),
        loss=loss,
        evaluate=evaluate,
        observe=observe,
        checkpoint=checkpoints.next("line", generator),
    )
    return model.state_dict(), fitted


def main() -> None:
    """Train, say each step on standard output and wait for a word on standard input after it."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])

    def observe(event: Event) -> None:
        if isinstance(event, Advanced) and event.steps == 1:
            sys.stdout.write("step\n")
            sys.stdout.flush()
            sys.stdin.readline()

    state, _ = train(Checkpoints(folder=folder, every_s=0), observe)
    np.savez(out, allow_pickle=False, **{name: value.numpy() for name, value in state.items()})


if __name__ == "__main__":
    main()
