import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from shards.batching import Batches

WAIT_S = 10.0


class _Doubling:
    """Doubles numbers; the first batch is held until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.go.wait(WAIT_S)
        if -1 in numbers:
            raise ValueError("no number")
        return [2 * number for number in numbers]


def _ask_beside(doubling: _Doubling, first: int, others: Sequence[int], most: int) -> list[object]:
    """Return the answers to a question and to those that come while it is computed, or their errors."""
    batches = Batches(doubling, most)

    def ask(number: int) -> object:
        try:
            return batches.answer(number)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(others) + 1) as threads:
        asked = [threads.submit(ask, first)]
        assert doubling.begun.wait(WAIT_S)
        asked += [threads.submit(ask, number) for number in others]
        while len(batches._waiting) < len(others):
            time.sleep(0.001)
        doubling.go.set()
        return [each.result(WAIT_S) for each in asked]


def test_one_alone_waits_for_nobody() -> None:
    doubling = _Doubling()
    doubling.go.set()
    assert Batches(doubling).answer(3) == 6
    assert doubling.batches == [[3]]


def test_those_who_come_meanwhile_go_together() -> None:
    doubling = _Doubling()
    assert _ask_beside(doubling, 1, range(10, 15), most=64) == [2, 20, 22, 24, 26, 28]
    assert [sorted(batch) for batch in doubling.batches] == [[1], [10, 11, 12, 13, 14]]


def test_a_batch_has_an_end() -> None:
    doubling = _Doubling()
    assert _ask_beside(doubling, 1, range(10, 15), most=2) == [2, 20, 22, 24, 26, 28]
    assert [len(batch) for batch in doubling.batches] == [1, 2, 2, 1]


def test_nobody_fails_for_what_another_asks() -> None:
    assert _ask_beside(_Doubling(), 1, [5, -1, 7], most=64) == [2, 10, "no number", 14]


def test_an_answer_too_few_is_an_error_and_no_wait_for_ever() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Batches[int, int](lambda _: []).answer(1)
