import functools
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.bundle import open_bundle, read_manifest
from shards.candidates import Candidates
from shards.errors import InvalidInput, NotFound
from shards.forward_index import ITEMS_FILE
from shards.gathering import Gathered
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.partitioning import partition_index, split
from shards.release import ModelVersion, partition_of
from shards.search_context import Filter, FilterClause
from shards.servable import open_servable
from shards.stages import Retriever
from tests.shards import bundles

TWO_TOWER = ModelVersion("two_tower", bundles.VERSION)
SPLITTABLE = ("two_tower", "neighbours", "memory", "again")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of every engine's bundle, split into 2, 4 and 8 partitions where that can be."""
    root: Path = tmp_path_factory.mktemp("models")
    bundles.build_models(root, 3)
    for name in SPLITTABLE:
        for partitions in (2, 4, 8):
            split(root, ModelVersion(name, bundles.VERSION), partitions)
    return root


def opened(root: Path, model: ModelVersion) -> Retriever:
    retriever = open_servable(open_bundle(root / model.model / model.version, model), "cpu")
    assert isinstance(retriever, Retriever)
    return retriever


@functools.cache
def whole_and_parts(root: Path, name: str, partitions: int) -> tuple[Retriever, Retriever]:
    model = ModelVersion(name, bundles.VERSION)
    parts = [opened(root, partition_of(model, i, partitions)) for i in range(partitions)]
    return opened(root, model), Gathered(tuple(parts))


def assert_equal(whole: Candidates, gathered: Candidates) -> None:
    assert gathered.item_ids == whole.item_ids
    assert gathered.columns.keys() == whole.columns.keys()
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(gathered.columns[name], column)
    assert gathered.attributes == whole.attributes


FILTERS: tuple[Filter, ...] = (
    (),
    (FilterClause(attribute="colour", any_of=("red", "blue")),),
    (
        FilterClause(attribute="price_gbp", max=4.0),
        FilterClause(attribute="colour", any_of=("red",), negate=True),
    ),
    (FilterClause(attribute="item_id", any_of=("item-042", "item-043")),),
    (FilterClause(attribute="colour", any_of=("no such colour",)),),
)


@pytest.mark.parametrize("name", SPLITTABLE)
@settings(max_examples=60, deadline=None)
@given(
    partitions=st.sampled_from((2, 4, 8)),
    query=st.sampled_from((*bundles.QUERIES, "", "zzz", "pink clock vintage")),
    bought=st.lists(st.sampled_from([f"item-{row:03d}" for row in range(0, 200, 7)] + ["ghost"]), max_size=6),
    k=st.integers(1, 220),
    allowed=st.sampled_from(FILTERS),
    described=st.integers(0, 12),
)
def test_partitions_answer_as_the_whole(
    root: Path,
    name: str,
    partitions: int,
    query: str,
    bought: list[str],
    k: int,
    allowed: Filter,
    described: int,
) -> None:
    whole, parts = whole_and_parts(root, name, partitions)
    asked = (bundles.context(query, *bought), k, allowed, ("title", "colour"), described)
    assert_equal(whole.retrieve(*asked), parts.retrieve(*asked))


def test_every_item_is_in_one_partition_and_finer_ones_refine(root: Path) -> None:
    def items(i: int, partitions: int) -> set[str]:
        part = partition_of(TWO_TOWER, i, partitions)
        return set(pq.read_table(root / part.model / part.version / ITEMS_FILE).column("item_id").to_pylist())

    everything = set(bundles.ITEMS.column("item_id").to_pylist())
    for partitions in (2, 4, 8):
        shares = [items(i, partitions) for i in range(partitions)]
        assert set().union(*shares) == everything
        assert sum(map(len, shares)) == len(everything)
    for i in range(4):
        assert items(i, 4) == items(i, 8) | items(i + 4, 8)
        assert items(i, 4) == {item for item in everything if partition_index(item, 4) == i}


def test_where_an_item_goes_never_changes() -> None:
    assert [partition_index(item, 8) for item in ("item-000", "item-001", "Ünïcode", "22423")] == [0, 4, 0, 7]


def test_partitions_are_refined_without_the_whole(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "two_tower.0-of-2", tmp_path / "two_tower.0-of-2")
    shutil.copytree(root / "two_tower.1-of-2", tmp_path / "two_tower.1-of-2")
    written: list[ModelVersion] = []
    parts = split(tmp_path, TWO_TOWER, 4, say=written.append)
    assert sorted(written) == sorted(parts) == [partition_of(TWO_TOWER, i, 4) for i in range(4)]
    refined = Gathered(tuple(opened(tmp_path, part) for part in parts))
    whole = opened(root, TWO_TOWER)
    for context in bundles.contexts():
        asked = (context, 70, (), ("title",), 5)
        assert_equal(whole.retrieve(*asked), refined.retrieve(*asked))
    for part in parts:
        refined_manifest = read_manifest(tmp_path / part.model / part.version)
        assert refined_manifest.partition == read_manifest(root / part.model / part.version).partition
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_was_written_before_an_interruption_is_kept(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "two_tower", tmp_path / "two_tower")
    shutil.copytree(root / "two_tower.1-of-2", tmp_path / "two_tower.1-of-2")
    written: list[ModelVersion] = []
    split(tmp_path, TWO_TOWER, 2, say=written.append)
    assert written == [partition_of(TWO_TOWER, 0, 2)]
    split(tmp_path, TWO_TOWER, 2, say=written.append)
    assert len(written) == 1


def test_goldens_are_what_the_whole_answers_of_its_part(root: Path) -> None:
    whole = opened(root, TWO_TOWER)
    for i in range(4):
        part = partition_of(TWO_TOWER, i, 4)
        bundle = open_bundle(root / part.model / part.version, part)
        golden = read_golden(bundle.file(GOLDEN_FILE))
        assert golden.contexts == tuple(bundles.contexts())
        replay(open_servable(bundle, "cpu"), golden, 0.0, 0.0)
        for context, item_ids in zip(golden.contexts, golden.item_ids, strict=True):
            everything = whole.retrieve(context, 200, (), (), 0).item_ids
            assert item_ids == tuple(item for item in everything if partition_index(item, 4) == i)[:10]


@pytest.mark.parametrize("index", ["SQ8", "IVF4,Flat", "HNSW8", "PCA8,Flat", "IVF4,SQ8,RFlat"])
def test_every_index_that_serves_can_be_split(tmp_path: Path, index: str) -> None:
    bundles.write_two_tower(tmp_path, bundles.seeded_words(), index=index)
    parts = Gathered(tuple(opened(tmp_path, part) for part in split(tmp_path, TWO_TOWER, 2)))
    found = parts.retrieve(bundles.context("red mug"), 20, (), ("title",), 3)
    assert len(found) == 20
    assert "RED" in found.attributes["title"][0]
    everything = parts.retrieve(bundles.context("red mug"), 500, (), (), 0)
    assert sorted(everything.item_ids) == bundles.ITEMS.column("item_id").to_pylist()


@pytest.mark.parametrize(
    ("name", "partitions", "problem"),
    [
        ("lexical", 2, "scores by BM25"),
        ("ranker", 2, "only retrieval searches a catalogue"),
        ("two_tower.1-of-2", 2, "is a partition; split two_tower@1"),
        ("two_tower", 1, "must be 2 to 256, but are 1"),
        ("two_tower", 200, "would hold none of the 200 items"),
    ],
)
def test_what_cannot_be_split_is_refused(root: Path, name: str, partitions: int, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        split(root, ModelVersion(name, bundles.VERSION), partitions)


def test_a_model_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="bundle 'ghost@1' does not exist"):
        split(tmp_path, ModelVersion("ghost", "1"), 2)
