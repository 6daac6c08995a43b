"""Sizes, times and names as people read them."""

import pytest

from deploy.views.table import bundle, size, span
from protos.headrace.v1 import types_pb2


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3599.7, "1 h"),
        (7800, "2 h 10 min"),
        (86_400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_spans(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_sizes() -> None:
    assert [size(n) for n in (0, 3 << 20, 1 << 30, 3 << 40)] == ["0.0 MB", "3.0 MB", "1.0 GB", "3,072.0 GB"]


def test_long_names_take_two_lines() -> None:
    def name(model: str) -> str:
        return bundle(types_pb2.ModelVersion(model=model, version="20261121-233015"))

    assert name("ranker") == "ranker@20261121-233015"
    assert name("online_retail-ranker") == "online_retail-ranker\n@20261121-233015"
