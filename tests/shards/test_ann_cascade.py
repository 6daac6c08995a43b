"""A first model that finds and a second one that puts in order."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from shards.ann_cascade import SECOND_FILE, open_cascade
from shards.ann_index import AnnIndex
from shards.errors import CorruptBundle, MismatchedBundle

FIRST = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]], np.float32)
SECOND = np.array([[0.1], [0.2], [0.3], [9.0]], np.float32)
QUERY = np.array([[1.0, 0.0, 1.0]], np.float32)


def index() -> AnnIndex:
    flat = faiss.IndexFlatIP(2)
    flat.add(FIRST)
    return AnnIndex(flat)


def test_the_second_orders_what_the_first_finds(tmp_path: Path) -> None:
    np.save(tmp_path / SECOND_FILE, SECOND)
    cascade = open_cascade(index(), tmp_path / SECOND_FILE, 3)
    assert (len(cascade), cascade.width) == (4, 3)
    scores, rows = cascade.search(QUERY, 2)
    assert rows.tolist() == [2, 1], "item 3 is the second's best, and not among the first's three"
    np.testing.assert_allclose(scores, [0.3, 0.2])
    allowed = np.array([True, False, False, True])
    assert cascade.search(QUERY, 2, allowed)[1].tolist() == [3, 0]


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / SECOND_FILE
    path.write_bytes(b"nonsense")
    with pytest.raises(CorruptBundle, match="cannot be read"):
        open_cascade(index(), path, 3)
    np.save(path, SECOND[:2])
    with pytest.raises(MismatchedBundle, match="each of 4 items"):
        open_cascade(index(), path, 3)
