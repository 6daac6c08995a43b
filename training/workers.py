"""Tasks done by Ray actors, each of which leaves a file or folder that is there whole or not at all.

What is there is not done again: by the caller, who leaves such tasks out, and by a worker, whose task comes
again after another died of it half-way. So nothing that was finished is lost to whoever is killed.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from shards.errors import Unavailable
from shards.process_memory import resident_bytes

T = TypeVar("T")
Doing = Callable[[T], None]
"""Does one task; raises whatever ends the whole run."""

_RETRIES = 3
"""How often a task may be begun again whose worker died of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A task was done: its place among the tasks, by which process, and that one's memory then."""

    index: int
    pid: int
    seconds: float
    resident_bytes: int


class Workers:
    """Actors of the Ray that runs, started when first needed; this process alone where `count` is 0."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._actors: list[Any] = []

    def do_all(
        self,
        start: Callable[[], Doing[T]],
        tasks: Sequence[T],
        on_done: Callable[[Done], None] = lambda _: None,
    ) -> None:
        """Have each worker call `start` once, and what it returns for each task that falls to it.

        A worker that dies is started again, and its task with it. Raises what a task raises, and
        `Unavailable` for a task that one worker after the other dies of.
        """
        if not self._count:
            doing = start() if tasks else None
            for index, task in enumerate(tasks):
                assert doing is not None
                on_done(_timed(doing, index, task))
            return
        pool, start_ref = ActorPool(self._started(len(tasks))), ray.put(start)
        try:
            for done in pool.map_unordered(
                lambda actor, task: actor.do.remote(start_ref, start_ref.hex(), *task),
                list(enumerate(tasks)),
            ):
                on_done(done)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            raise Unavailable(f"a worker died {_RETRIES + 1} times of one task: {error}") from error

    def _started(self, wanted: int) -> list[Any]:
        kind = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
        while len(self._actors) < min(wanted, self._count):
            self._actors.append(kind.remote())
        return self._actors


class _Worker:
    def __init__(self) -> None:
        # As many workers as cores: more threads than one would contend for them.
        torch.set_num_threads(1)
        self._began = ""
        self._doing: Doing[Any] = lambda _: None

    def do(self, start: Callable[[], Doing[Any]], began: str, index: int, task: Any) -> Done:
        if began != self._began:
            self._doing, self._began = start(), began
        return _timed(self._doing, index, task)


def _timed(doing: Doing[T], index: int, task: T) -> Done:
    started = time.perf_counter()
    doing(task)
    return Done(
        index=index,
        pid=os.getpid(),
        seconds=time.perf_counter() - started,
        resident_bytes=resident_bytes(),
    )
