"""Vectors that travel as features of the user."""

import numpy as np
import pytest

from shards.release import ModelVersion
from shards.search_context import RawValue
from shards.stored_vectors import feature_of, read_stored, stored

MODEL = ModelVersion("beauty-embedding", "2")
VECTOR_HD = np.array([[0.5, -1.0, 2.0], [3.0, 0.1, 1e-9]], np.float32)


def test_a_vector_comes_back_as_it_was() -> None:
    features: dict[str, RawValue] = {feature_of(MODEL.model): stored(VECTOR_HD, "2"), "age": 3.0}
    found = read_stored(features, MODEL, 3)
    assert found is not None
    np.testing.assert_array_equal(found, VECTOR_HD)
    found[0] = 0.0, 0.0, 0.0  # FAISS may normalise in place.


@pytest.mark.parametrize(
    "value",
    [
        stored(VECTOR_HD, "1"),
        stored(VECTOR_HD[:, :2], "2"),
        stored(np.array([[np.nan, 1.0, 2.0]], np.float32), "2"),
        "2",
        "2 ",
        "2 !!!",
        "2 AAA=",
        3.0,
        ("2", "AAAA"),
    ],
    ids=("version", "width", "nan", "empty", "no values", "no base64", "bytes", "number", "texts"),
)
def test_what_is_no_vector_of_the_version_is_none(value: str | float | tuple[str, ...]) -> None:
    assert read_stored({feature_of(MODEL.model): value}, MODEL, 3) is None


def test_a_vector_of_another_model_is_none() -> None:
    assert read_stored({feature_of("other"): stored(VECTOR_HD, "2")}, MODEL, 3) is None
