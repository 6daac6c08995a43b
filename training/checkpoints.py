"""What training has reached, on disk: killed at any step and started again, it ends with the same parameters.

A checkpoint holds all that decides what comes next: parameters, the optimiser's state, the best epoch's
parameters, the rest of the epoch's batches and the state of every random generator. It is an NPZ of plain
arrays, replaced in one step; no pickle is ever read. Runs are equal bit for bit with equal settings, data,
seed, threads and device.
"""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.errors import CorruptRecord
from training.whole_file import write_whole

_MODEL, _BEST, _OPTIMIZER = "model/", "best/", "optimizer/"

State = dict[str, Tensor]


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a loop has come: `step` steps of the epoch's `batches`, epochs counted from 1."""

    epoch: int = 1
    step: int = 0
    total_loss: float = 0.0
    """Sum of the epoch's losses so far."""
    best_epoch: int = 0
    best_metric: float = -np.inf
    finished: bool = False
    batches: Sequence[Tensor] = ()
    """All batches of the epoch under way; none where it has not begun."""
    best: State | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The checkpoint of one `fit`; nothing is kept where there is no path.

    `generator` is what the caller draws batches and negatives from, beside torch's global one.
    """

    path: Path | None = None
    every_s: float = 0.0
    generator: torch.Generator | None = None

    def due(self, last_s: float) -> bool:
        """Say whether it is time to save again, after a save at this `time.monotonic()`."""
        return self.path is not None and time.monotonic() - last_s >= self.every_s

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Replace the file with where training is now."""
        if self.path is None:
            return
        tensors = {f"{_MODEL}{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"{_BEST}{name}": value for name, value in (progress.best or {}).items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}{number}/{name}": value for name, value in state.items()}
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        arrays |= _numbers(progress) | self._random()
        # The names are keys with slashes, which savez takes as they are.
        write_whole(self.path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Put model, optimiser and generators where they were; None where nothing was saved.

        Raises `CorruptRecord` for a file that is no checkpoint of this model.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            model.load_state_dict(_below(arrays, _MODEL))
            states = _optimizer_states(_below(arrays, _OPTIMIZER))
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
            self._restore_random(arrays)
            return _progress(arrays)
        except (OSError, ValueError, KeyError, RuntimeError, BadZipFile) as error:
            raise CorruptRecord(
                str(self.path.parent), self.path.name, f"no checkpoint of this model: {error}"
            ) from error

    def _random(self) -> dict[str, NDArray[np.uint8]]:
        states = {"random/torch": torch.get_rng_state()}
        if self.generator is not None:
            states["random/generator"] = self.generator.get_state()
        for device, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()):
            states[f"random/cuda/{device}"] = state
        return {name: state.numpy() for name, state in states.items()}

    def _restore_random(self, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        torch.set_rng_state(torch.from_numpy(arrays["random/torch"]))
        if self.generator is not None:
            self.generator.set_state(torch.from_numpy(arrays["random/generator"]))
        for device, state in _below(arrays, "random/cuda/").items():
            torch.cuda.set_rng_state(state, int(device))


NOT_KEPT = Checkpoint()


@dataclass(slots=True, kw_only=True)
class Checkpoints:
    """Files of a whole run: one for each `fit` of it, in order; none where there is no folder."""

    folder: Path | None = None
    every_s: float = 30.0
    """How often the `fit` under way is saved; 0 saves every step."""
    _made: int = field(default=0, init=False)

    def next(self, name: str, generator: torch.Generator) -> Checkpoint:
        """Return the checkpoint of the run's next `fit`. A run that goes on asks in the same order."""
        self._made += 1
        if self.folder is None:
            return NOT_KEPT
        path = self.folder / f"{self._made:02}-{name.replace(' ', '-')}.npz"
        return Checkpoint(path=path, every_s=self.every_s, generator=generator)

    def clear(self) -> None:
        """Remove every checkpoint of the folder."""
        for path in self.folder.glob("*.npz") if self.folder else ():
            path.unlink()


def _below(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> State:
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _optimizer_states(tensors: State) -> dict[int, State]:
    states: dict[int, State] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        states.setdefault(int(number), {})[name] = value
    return states


def _numbers(progress: Progress) -> dict[str, NDArray[np.generic]]:
    return {
        "counts": np.array([progress.epoch, progress.step, progress.best_epoch, progress.finished], np.int64),
        "figures": np.array([progress.total_loss, progress.best_metric], np.float64),
        "batches": torch.cat(list(progress.batches)).numpy() if progress.batches else np.empty(0, np.int64),
        "batch_sizes": np.array([len(batch) for batch in progress.batches], np.int64),
    }


def _progress(arrays: Mapping[str, NDArray[np.generic]]) -> Progress:
    epoch, step, best_epoch, finished = arrays["counts"].tolist()
    total_loss, best_metric = arrays["figures"].tolist()
    sizes = arrays["batch_sizes"].tolist()
    return Progress(
        epoch=epoch,
        step=step,
        total_loss=total_loss,
        best_epoch=best_epoch,
        best_metric=best_metric,
        finished=bool(finished),
        batches=torch.split(torch.from_numpy(arrays["batches"]), sizes) if sizes else (),
        best=_below(arrays, _BEST) or None,
    )
