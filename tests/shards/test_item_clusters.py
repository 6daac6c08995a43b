"""Lists that clusters of items share."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from shards.ann_index import AnnIndex
from shards.bundle import open_bundle
from shards.candidates import Floats
from shards.errors import BundleError, InvalidInput
from shards.interests import unit
from shards.item_clusters import CLUSTERS_FILE, ClusteredIndex, ItemClusters, open_clustered
from shards.partition_files import check_can_split
from shards.release import Stage
from shards.search_context import FilterClause
from shards.two_tower import TwoTower, open_two_tower
from tests.shards import bundles
from tests.shards.programs import WIDTH, QueryTower, export, spec

D, SIZES = 8, (30, 20, 10)


def index_of(vector_ND: Floats) -> AnnIndex:
    index = faiss.IndexFlatIP(vector_ND.shape[1])
    index.add(np.ascontiguousarray(vector_ND))
    return AnnIndex(index)


def clustered(asked: int) -> ClusteredIndex:
    """Return an index of three clusters, of 30, 20 and 10 items about three axes."""
    centroid_CD = np.eye(3, D, dtype=np.float32)
    cluster_N = np.repeat(np.arange(3, dtype=np.int32), SIZES)
    noise_ND = np.random.default_rng(0).standard_normal((sum(SIZES), D)).astype(np.float32)
    index = index_of(centroid_CD[cluster_N] + 0.1 * unit(noise_ND))
    return ClusteredIndex(
        index=index, clusters=ItemClusters(centroid_CD=centroid_CD, cluster_N=cluster_N), asked=asked
    )


ASKED = np.array([[1.0, 0.6, 0.3, 0, 0, 0, 0, 0]], np.float32)
"""Nearest to the first cluster, then to the second."""


@pytest.mark.parametrize(("asked", "shares"), [(1, [12, 0, 0]), (2, [6, 6, 0]), (3, [4, 4, 4])])
def test_the_nearest_clusters_share_the_list(asked: int, shares: list[int]) -> None:
    ann = clustered(asked)
    scores, rows = ann.search(ASKED, 12)
    assert np.bincount(ann.clusters.cluster_N[rows], minlength=3).tolist() == shares
    assert (np.diff(scores) <= 0).all()
    best, _ = ann.index.search(ASKED, 1)
    assert scores[0] == best[0]
    assert ann.search(ASKED, len(rows))[1].tolist() == rows.tolist(), "goldens ask for as many as there were"


def test_what_a_cluster_has_not_is_made_up_for() -> None:
    ann = clustered(3)
    _, rows = ann.search(ASKED, 45)
    assert np.bincount(ann.clusters.cluster_N[rows]).tolist() == [20, 15, 10]
    assert len(set(rows.tolist())) == 45
    assert len(ann.search(ASKED, 100)[1]) == sum(SIZES)


def test_filters_take_nothing_from_a_list() -> None:
    ann = clustered(2)
    without_first_N = ann.clusters.cluster_N != 0
    _, rows = ann.search(ASKED, 12, without_first_N)
    assert np.bincount(ann.clusters.cluster_N[rows], minlength=3).tolist() == [0, 6, 6]
    few_N = np.isin(np.arange(sum(SIZES)), [0, 1, 31, 59])
    assert sorted(ann.search(ASKED, 12, few_N)[1].tolist()) == [0, 1, 31, 59]
    assert len(ann.search(ASKED, 12, np.zeros(sum(SIZES), np.bool_))[1]) == 0


def write_spread(root: Path, clusters: ItemClusters | None, spread: int) -> Path:
    words = bundles.seeded_words()
    lengths = {"query_ngrams": bundles.QUERY_NGRAMS.max_len, "history_items": bundles.HISTORY.max_len}
    example = {name: bundles.ids(2, length) for name, length in lengths.items()}
    programs = {"query_tower": spec("query_tower.pt2", example, output="vector", varying=tuple(example))}

    def fill(folder: Path) -> None:
        bundles.write_spec(folder, bundles.QUERY_NGRAMS, bundles.HISTORY, bundles.TITLE_NGRAMS)
        tower = QueryTower(words, len(bundles.ITEMS))
        export(tower, example, folder / "query_tower.pt2", varying=tuple(example))
        index = faiss.IndexFlatIP(WIDTH)
        index.add(bundles.item_vectors(words))
        faiss.write_index(index, str(folder / "index.faiss"))
        if clusters is not None:
            clusters.save(folder / CLUSTERS_FILE)

    described = bundles.manifest(
        "spread", Stage.RETRIEVAL, "two_tower", programs=programs, params={"clusters": spread}
    )
    return bundles.write(root, described, fill)


def shop_clusters(count: int = 10) -> ItemClusters:
    """Return the shop's items by which of some of them is nearest."""
    vector_ND = bundles.item_vectors(bundles.seeded_words())
    nearest_N = (vector_ND @ vector_ND[:count].T).argmax(axis=1)
    return ItemClusters(centroid_CD=vector_ND[:count], cluster_N=nearest_N.astype(np.int32))


def test_a_bundle_spreads_its_answers_within_a_filter(tmp_path: Path) -> None:
    clusters = shop_clusters()
    bundle = open_bundle(write_spread(tmp_path, clusters, 4))
    engine = open_two_tower(bundle, "cpu")
    assert isinstance(engine, TwoTower)
    anything = engine.retrieve(bundles.context("red mug"), 8, (), (), 0)
    rows = engine.items.rows_of(anything.item_ids)
    assert np.bincount(clusters.cluster_N[rows]).max() == 2
    without = FilterClause(attribute="item_id", any_of=anything.item_ids[:3], negate=True)
    others = engine.retrieve(bundles.context("red mug"), 8, (without,), (), 0)
    assert len(others) == 8
    assert not set(others.item_ids) & set(anything.item_ids[:3])
    with pytest.raises(InvalidInput, match="spreads answers over clusters"):
        check_can_split(bundle.manifest)


@pytest.mark.parametrize(
    ("clusters", "spread", "problem"),
    [
        (None, 3, "is not in the bundle"),
        (None, 0, "clusters must be at least 1"),
        (
            ItemClusters(centroid_CD=np.zeros((2, 3), np.float32), cluster_N=np.zeros(200, np.int32)),
            2,
            "does not fit",
        ),
    ],
)
def test_bundles_that_cannot_spread_are_refused(
    tmp_path: Path, clusters: ItemClusters | None, spread: int, problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        write_spread(tmp_path, clusters, spread)


def test_clusters_that_hold_nonsense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in none of 2 clusters"):
        ItemClusters(centroid_CD=np.zeros((2, 3), np.float32), cluster_N=np.full(4, 2, np.int32))
    with pytest.raises(ValueError, match="not finite"):
        ItemClusters(centroid_CD=np.full((2, 3), np.nan, np.float32), cluster_N=np.zeros(4, np.int32))
    broken = tmp_path / CLUSTERS_FILE
    broken.write_bytes(b"PK nothing")
    with pytest.raises(BundleError, match="cannot be read"):
        open_clustered(index_of(np.eye(4, dtype=np.float32)), broken, 2)
