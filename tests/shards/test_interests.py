"""Interests of a user, and the engine that asks with their items."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.bundle import open_bundle
from shards.candidates import Floats
from shards.errors import InvalidInput, MismatchedBundle
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.history_rows import HistoryRows
from shards.interests import InterestParams, Interests, interests_of, newest_distinct
from shards.item_vectors import ItemVectors
from shards.partition_files import check_can_split
from shards.release import Stage
from shards.servable import open_servable
from shards.ward import ward_labels
from tests.shards import bundles
from tests.shards.programs import WIDTH


def greedy_ward(vector_ND: Floats, cut: float) -> list[int]:
    """Return labels by merging, again and again, the two clusters that are nearest by definition."""
    clusters = [[row] for row in range(len(vector_ND))]

    def distance(a: list[int], b: list[int]) -> float:
        apart = np.linalg.norm(vector_ND[a].mean(axis=0) - vector_ND[b].mean(axis=0))
        return float(np.sqrt(2 * len(a) * len(b) / (len(a) + len(b))) * apart)

    while len(clusters) > 1:
        pairs = [(distance(a, b), i, j) for i, a in enumerate(clusters) for j, b in enumerate(clusters[:i])]
        least, i, j = min(pairs)
        if least > cut:
            break
        clusters[j] = sorted(clusters[j] + clusters.pop(i))
    labels = {row: min(cluster) for cluster in clusters for row in cluster}
    order = sorted(set(labels.values()))
    return [order.index(labels[row]) for row in range(len(vector_ND))]


@given(seed=st.integers(0, 10_000), size=st.integers(1, 12), cut=st.floats(0.1, 4.0))
def test_chains_find_what_greedy_merging_finds(seed: int, size: int, cut: float) -> None:
    vector_ND = np.random.default_rng(seed).standard_normal((size, 3)).astype(np.float32)
    assert ward_labels(vector_ND, cut).tolist() == greedy_ward(vector_ND.astype(np.float64), cut)


def test_equal_vectors_are_one_cluster() -> None:
    assert ward_labels(np.ones((5, 3), np.float32), 0.1).tolist() == [0] * 5


AXES = np.eye(4, dtype=np.float32)
VECTORS = np.concatenate([AXES[[0, 0, 0, 1, 1]] + 0.05 * AXES[[2, 3, 2, 2, 3]], AXES[2:3]])
"""Three items of one kind, two of another, one of a third."""


def history(rows: list[int], ages_days: list[float]) -> HistoryRows:
    return HistoryRows(rows=np.array(rows), ages_days=np.array(ages_days), actions=("purchase",) * len(rows))


def test_medoids_come_by_importance_and_old_events_do_not_count() -> None:
    met = history([5, 0, 1, 2, 3, 3, 3, 3], [95.0, 20.0, 10.0, 10.0, 3.0, 2.0, 1.0, 1.0])
    found = interests_of(met, lambda rows: VECTORS[rows], InterestParams(cut=1.0))
    assert found.medoid_C.tolist() == [3, 0], "item 5 is too old; item 0 lies between 1 and 2"
    expected = [np.exp(-0.01 * np.array(ages)).sum() for ages in ([3, 2, 1, 1], [20, 10, 10])]
    np.testing.assert_allclose(found.importance_C, expected)
    nothing = interests_of(history([5], [95.0]), lambda rows: VECTORS[rows], InterestParams())
    assert len(nothing.medoid_C) == 0


def test_draws_are_by_importance_and_last_a_day() -> None:
    interests = Interests(medoid_C=np.arange(4), importance_C=np.array([8.0, 4.0, 2.0, 0.1]))
    days = [interests.drawn(2, "u1", day * bundles.DAY_MS) for day in range(400)]
    counts = np.bincount(np.concatenate(days), minlength=4)
    assert (np.diff(counts) < 0).all()
    assert counts[0] > 300 > counts[3]
    noon = interests.drawn(2, "u1", 7 * bundles.DAY_MS + bundles.DAY_MS // 2)
    assert noon.tolist() == days[7].tolist()


def test_the_newest_items_come_first_and_once() -> None:
    assert newest_distinct(np.array([3, 1, 3, 2, 1]), 2).tolist() == [1, 2]
    assert newest_distinct(np.array([], np.int64), 2).tolist() == []


def write_item_vectors(root: Path, *, index: str = "Flat", **params: object) -> Path:
    vector_ND = bundles.item_vectors(bundles.seeded_words())
    if index == "SQ8_direct_signed":
        vector_ND = np.clip(np.round(vector_ND * 128), -128, 127)

    def fill(folder: Path) -> None:
        bundles.write_items(folder)
        made = faiss.index_factory(WIDTH, index, faiss.METRIC_INNER_PRODUCT)
        made.train(vector_ND)
        made.add(vector_ND)
        faiss.write_index(made, str(folder / "index.faiss"))

    described = bundles.manifest("seen", Stage.RETRIEVAL, "item_vectors", params=params)
    return bundles.write(root, described, fill)


def opened(path: Path) -> ItemVectors:
    bundle = open_bundle(path)
    engine = open_servable(bundle, "cpu")
    replay(engine, read_golden(bundle.file(GOLDEN_FILE)), 1e-5, 1e-6)
    assert isinstance(engine, ItemVectors)
    return engine


@pytest.mark.parametrize("index", ["Flat", "SQ8_direct_signed", "IVF4,Flat"])
def test_every_newest_item_finds_its_like(tmp_path: Path, index: str) -> None:
    engine = opened(write_item_vectors(tmp_path, index=index, newest=2))
    found = engine.retrieve(bundles.context("", "item-050", "item-003", "item-117"), 4, (), (), 0)
    near = [engine.ann.search(engine.ann.vectors_at(np.array([row])), 2)[1] for row in (3, 117)]
    assert set(found.item_ids) == {engine.items.item_ids[row] for rows in near for row in rows.tolist()}
    assert {"item-003", "item-117"} < set(found.item_ids)
    assert len(engine.retrieve(bundles.context("no history"), 4, (), (), 0)) == 0


def test_medoids_ask_where_there_are_interests(tmp_path: Path) -> None:
    engine = opened(write_item_vectors(tmp_path, interests={"cut": 0.8, "drawn": 3}))
    asked = bundles.context("", "item-003", "item-103", "item-117")
    asking = {engine.items.item_ids[row] for row in engine.asking(asked).tolist()}
    assert len(asking) == 2
    assert "item-117" in asking


def test_bundles_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchedBundle, match="newest must be at least 1"):
        write_item_vectors(tmp_path, newest=0)
    with pytest.raises(MismatchedBundle, match="cut must be above 0"):
        write_item_vectors(tmp_path, interests={"cut": 0.0})
    bundle = open_bundle(write_item_vectors(tmp_path))
    with pytest.raises(InvalidInput, match="cannot be split"):
        check_can_split(bundle.manifest)
