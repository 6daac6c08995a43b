"""Questions of several threads, answered together: whoever comes while some are computed goes with the next.

So nobody waits for company, and batches grow with the load. It pays where a call costs the same for one as
for many, as on a GPU.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 64
"""Questions in a batch."""


@dataclass(slots=True, eq=False)
class _Asked(Generic[Q, A]):
    question: Q
    ended: bool = False
    answer: A | None = None
    error: Exception | None = None


class Batches(Generic[Q, A]):
    """Has `answer_all` answer up to `most` questions at once; it never runs in two threads at a time."""

    def __init__(self, answer_all: Callable[[Sequence[Q]], Sequence[A]], most: int = MOST) -> None:
        self._answer_all = answer_all
        self._most = most
        self._changed = threading.Condition()
        self._waiting: list[_Asked[Q, A]] = []
        self._computing = False

    def answer(self, question: Q) -> A:
        """Return the answer to a question; raises what `answer_all` raises for it alone."""
        asked: _Asked[Q, A] = _Asked(question)
        with self._changed:
            self._waiting.append(asked)
        while batch := self._turn(asked):
            try:
                self._compute(batch)
            finally:
                with self._changed:
                    self._computing = False
                    self._changed.notify_all()
        if asked.error is not None:
            raise asked.error
        return asked.answer  # type: ignore[return-value]

    def _turn(self, asked: _Asked[Q, A]) -> Sequence[_Asked[Q, A]]:
        """Return the batch to compute, once nobody else does; none where others have answered meanwhile."""
        with self._changed:
            while self._computing and not asked.ended:
                self._changed.wait()
            if asked.ended:
                return ()
            self._computing = True
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            return batch

    def _compute(self, batch: Sequence[_Asked[Q, A]]) -> None:
        try:
            answers = self._answer_all([asked.question for asked in batch])
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:
            if len(batch) > 1:
                # Nobody is to fail for what another one asked.
                for asked in batch:
                    self._compute([asked])
            else:
                batch[0].error, batch[0].ended = error, True
            return
        for asked, answer in answered:
            asked.answer, asked.ended = answer, True
