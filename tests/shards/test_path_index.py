"""Paths of items: the beam search against all paths, files, and what is refused."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from shards.errors import CorruptBundle, MismatchedBundle
from shards.path_index import PathIndex, PathLayer, likeliest, numbers_of

NODES, WIDTH, HIDDEN = 4, 5, 6


def layers(count: int = 3, seed: int = 0) -> tuple[PathLayer, ...]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.typing.NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    return tuple(
        PathLayer(
            query_DH=normal(WIDTH, HIDDEN),
            bias_H=normal(HIDDEN),
            before_LKH=normal(number, NODES, HIDDEN),
            out_HK=normal(HIDDEN, NODES),
            out_bias_K=normal(NODES),
        )
        for number in range(count)
    )


def log_p(vector_D: np.typing.NDArray[np.float32], path: tuple[int, ...]) -> float:
    """Return the log probability of a path, one node after the other."""
    total = 0.0
    for number, layer in enumerate(layers(len(path))):
        hidden = vector_D @ layer.query_DH + layer.bias_H
        for before in range(number):
            hidden = hidden + layer.before_LKH[before, path[before]]
        logits = np.maximum(hidden, 0) @ layer.out_HK + layer.out_bias_K
        total += float(logits[path[number]] - np.log(np.exp(logits).sum()))
    return total


def queries(count: int = 3) -> np.typing.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)


def test_a_beam_of_all_paths_finds_them_all_with_their_probabilities() -> None:
    path_QP, log_p_QP = likeliest(layers(), queries(), NODES**3)
    np.testing.assert_allclose(np.exp(log_p_QP).sum(axis=1), 1.0, rtol=1e-5)
    expected = {
        int(numbers_of(np.array(path), NODES)): log_p(queries()[0], path)
        for path in product(range(NODES), repeat=3)
    }
    assert dict(zip(path_QP[0].tolist(), log_p_QP[0].tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-4, abs=1e-4
    )
    assert (np.diff(log_p_QP, axis=1) <= 0).all(), "best first"


def test_a_narrow_beam_keeps_the_likeliest_of_what_it_saw() -> None:
    wide, _ = likeliest(layers(1), queries(), NODES)
    narrow, _ = likeliest(layers(1), queries(), 2)
    np.testing.assert_array_equal(narrow, wide[:, :2])


def index() -> PathIndex:
    path_NJ = np.random.default_rng(2).integers(0, NODES**3, size=(20, 2))
    path_NJ[7] = path_NJ[7, 0]
    return PathIndex.of(layers(), path_NJ)


def test_a_beam_of_all_paths_reaches_every_item_once() -> None:
    assert index().reached(queries(1), NODES**3).tolist() == list(range(20))


def test_items_are_reached_by_either_path() -> None:
    path_NJ = np.array([[3, 9], [9, 9], [5, 6]])
    found = PathIndex.of(layers(), path_NJ)
    (path_P,), _ = likeliest(layers(), queries(1), NODES**3)
    for beam in range(1, NODES**3 + 1):
        on_beam = set(path_P[:beam].tolist())
        if likeliest(layers(), queries(1), beam)[0][0].tolist() == path_P[:beam].tolist():
            expected = [row for row, paths in enumerate(path_NJ.tolist()) if on_beam & set(paths)]
            assert found.reached(queries(1), beam).tolist() == expected


def test_what_is_written_is_read(tmp_path: Path) -> None:
    index().save(tmp_path / "paths.npz")
    read = PathIndex.open(tmp_path / "paths.npz", 20)
    for beam in (1, 4, 64):
        np.testing.assert_array_equal(read.reached(queries(1), beam), index().reached(queries(1), beam))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"row_M": np.array([20])}, "a row of none of 20 items"),
        ({"path_M": np.array([], np.int64), "row_M": np.array([], np.int64)}, "no items on paths"),
        ({"1.out_HK": np.zeros((2, NODES), np.float32)}, r"out_HK in layer 1 that is not finite \(6, 4\)"),
        ({"0.bias_H": np.full(HIDDEN, np.nan, np.float32)}, "bias_H in layer 0"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    path = tmp_path / "paths.npz"
    PathIndex.of(layers(), np.zeros((1, 1), np.int64)).save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez(path, **arrays)
    with pytest.raises(MismatchedBundle, match=problem):
        PathIndex.open(path, 20)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "paths.npz").write_bytes(b"no zip")
    with pytest.raises(CorruptBundle, match=r"paths\.npz: cannot be read"):
        PathIndex.open(tmp_path / "paths.npz", 20)
