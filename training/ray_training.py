"""A recipe trained by several workers together, with Ray Train: the steps are those of one process.

Every worker runs the whole recipe on data of its own memory; what is divided is the computing of losses
(`training.share`). The first one writes the bundles and the checkpoints, from which all go on when a worker
dies or the run is resumed.
"""

import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from shards.errors import Unavailable
from training.channels import Destination
from training.pipeline import Trained, train
from training.run import Run
from training.trainer import Observer, ignore

_FAILURES = 3
"""Workers that may die before a run is given up."""
_NO_MORE = "no more"


def train_together(run: Run, destination: Destination, workers: int) -> Trained:
    """Train a recipe by so many workers of the Ray that was joined, as `train` does by one.

    The folders of `destination` and of the checkpoints must be the same for all of them. Raises `Unavailable`
    with the last worker's words where the run fails for good.
    """
    events, observe = Queue(actor_options={"num_cpus": 0}), run.observe
    told = replace(run, observe=ignore)
    with tempfile.TemporaryDirectory(prefix="headrace-train-") as folder:
        trainer = TorchTrainer(
            _on_worker(told, destination, events),
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=False),
            run_config=RunConfig(
                name=run.recipe.name,
                storage_path=folder,
                failure_config=FailureConfig(max_failures=_FAILURES),
            ),
        )
        heard: list[Trained] = []
        listener = threading.Thread(target=_listen, args=(events, observe, heard), daemon=True)
        listener.start()
        try:
            with warnings.catch_warnings():
                # Ray warns of settings that nobody but itself has made.
                warnings.simplefilter("ignore", DeprecationWarning)
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise Unavailable(f"training by {workers} workers failed: {error}") from error
        finally:
            events.put(_NO_MORE)
            listener.join()
            events.shutdown()
    return heard[-1]


def _on_worker(run: Run, destination: Destination, events: Queue) -> Callable[[], None]:
    def work() -> None:
        leads = ray.train.get_context().get_world_rank() == 0
        with tempfile.TemporaryDirectory(prefix="headrace-train-") as scratch:
            if leads:
                # A worker that died may have written some of it.
                for path in destination.root.iterdir():
                    shutil.rmtree(path)
            own = destination if leads else replace(destination, root=Path(scratch))
            mine = replace(run, observe=events.put) if leads else run
            trained = train(mine, own)
            if leads:
                events.put(trained)

    return work


def _listen(events: Queue, observe: Observer, heard: list[Trained]) -> None:
    """Pass on what the first worker says until the run has ended."""
    event: Any
    while (event := events.get()) != _NO_MORE:
        if isinstance(event, Trained):
            heard.append(event)
        else:
            observe(event)
