import numpy as np
import pytest

from shards.candidates import Floats
from shards.program_inputs import Arrays
from shards.query_vectors import QueryVectors


class _Tower:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, features: Arrays) -> Floats:
        self.calls += 1
        return np.array([[float(features["words"].sum()), float(features["age"][0])]], np.float32)


def _features(*words: int, age: float = 1.0) -> Arrays:
    return {"words": np.array([words], np.int64), "age": np.array([age], np.float32)}


def test_an_equal_query_is_encoded_once() -> None:
    tower = _Tower()
    vectors = QueryVectors(tower)
    first = vectors.of(_features(1, 2))
    np.testing.assert_array_equal(vectors.of(_features(1, 2)), first)
    assert tower.calls == 1


@pytest.mark.parametrize("other", [_features(2, 1), _features(1, 2, age=2.0), _features(1, 3)])
def test_whatever_differs_is_another_query(other: Arrays) -> None:
    tower = _Tower()
    vectors = QueryVectors(tower)
    vectors.of(_features(1, 2))
    np.testing.assert_array_equal(vectors.of(other), _Tower()(other))
    assert tower.calls == 2


def test_those_asked_for_last_are_kept() -> None:
    tower = _Tower()
    vectors = QueryVectors(tower, remembered=2)
    for word in (1, 2, 1, 3):  # 2 was not asked for as lately as 1 when 3 came.
        vectors.of(_features(word))
    assert tower.calls == 3
    vectors.of(_features(1))
    assert tower.calls == 3
    vectors.of(_features(2))
    assert tower.calls == 4


def test_what_fails_is_not_remembered() -> None:
    failing = True

    def encode(features: Arrays) -> Floats:
        if failing:
            raise RuntimeError("no memory")
        return _Tower()(features)

    vectors = QueryVectors(encode)
    with pytest.raises(RuntimeError):
        vectors.of(_features(1))
    failing = False
    assert vectors.of(_features(1))[0, 0] == 1.0
