from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from shards.bundle import Bundle, open_bundle, write_bundle
from shards.candidates import Floats
from shards.errors import InvalidInput, MismatchedBundle, Unavailable
from shards.program_inputs import Arrays
from shards.release import Stage
from shards.runner import open_runner
from shards.search_context import FilterClause
from shards.servable import open_servable
from shards.stages import Retriever
from shards.two_tower import QUERY_TOWER, TwoTower, together
from tests.shards.bundles import (
    VERSION,
    all_items,
    context,
    item_vectors,
    manifest,
    seeded_words,
    write_items,
    write_two_tower,
)
from tests.shards.programs import WIDTH, Words

Open = Callable[[str], Retriever]


def test_the_nearest_items_come_first(retriever: Open) -> None:
    found = retriever("two_tower").retrieve(context("red mug"), 3, (), ("title", "colour"), 2)
    assert found.item_ids[:2] == ("item-000", "item-100")
    assert found.attributes == {"title": ("RED MUG", "VINTAGE RED MUG"), "colour": ("red", "red")}
    assert found.columns["score"][0] == pytest.approx(1.0, abs=1e-5)


def test_scores_are_those_of_the_model_in_eager_mode(retriever: Open) -> None:
    found = retriever("two_tower").retrieve(context("red mug"), 200, (), (), 0)
    cosines = item_vectors(seeded_words()) @ item_vectors(seeded_words())[0]
    expected = dict(zip(all_items().item_ids, cosines.tolist(), strict=True))
    np.testing.assert_allclose(
        found.columns["score"], [expected[item_id] for item_id in found.item_ids], atol=1e-5
    )


def test_history_moves_the_query(retriever: Open) -> None:
    engine = retriever("two_tower")
    without = engine.retrieve(context("red mug"), 50, (), (), 0)
    with_history = engine.retrieve(context("red mug", "item-117"), 50, (), (), 0)
    assert not np.array_equal(without.columns["score"], with_history.columns["score"])


@pytest.mark.parametrize("index", ["Flat", "IVF8,Flat", "HNSW8"])
def test_a_filter_lets_only_allowed_items_through_and_finds_them_all(tmp_path: Path, index: str) -> None:
    bundle = open_bundle(write_two_tower(tmp_path, seeded_words(), index=index))
    engine = open_servable(bundle, "cpu")
    assert isinstance(engine, Retriever)
    cheap_pink = (
        FilterClause(attribute="colour", any_of=("pink",)),
        FilterClause(attribute="price_gbp", max=4.0),
    )
    found = engine.retrieve(context("black clock"), 100, cheap_pink, ("colour",), 100)
    assert sorted(found.item_ids) == [f"item-{row:03d}" for row in range(40, 50)]
    assert set(found.attributes["colour"]) == {"pink"}


def test_a_radius_leaves_out_what_is_further(retriever: Open) -> None:
    engine = retriever("two_tower")
    assert isinstance(engine, TwoTower)
    scores = engine.retrieve(context("red mug"), 50, (), (), 0).columns["score"]
    near = replace(engine, radius=float(scores[20])).retrieve(context("red mug"), 50, (), (), 0)
    assert len(near) == int((scores >= scores[20]).sum()) < 50
    assert len(replace(engine, radius=2.0).retrieve(context("red mug"), 50, (), (), 0)) == 0
    assert len(replace(engine, radius=-1.0).retrieve(context("red mug"), 5, (), (), 0)) == 5


def test_more_than_the_catalogue_is_the_catalogue(retriever: Open) -> None:
    assert len(retriever("two_tower").retrieve(context(), 10_000, (), (), 0)) == 200


def test_unknown_attributes_are_the_callers_mistake(retriever: Open) -> None:
    with pytest.raises(InvalidInput, match=r"attributes\[1\]: 'size' is not an attribute"):
        retriever("two_tower").retrieve(context(), 3, (), ("title", "size"), 1)
    with pytest.raises(InvalidInput, match=r"filter.clauses\[0\].attribute: 'size'"):
        retriever("two_tower").retrieve(context(), 3, (FilterClause(attribute="size", any_of=("L",)),), (), 0)


def test_a_tower_that_gives_nan_is_unavailable(tmp_path: Path) -> None:
    class Broken(Words):
        def forward(self, ids_BL):  # type: ignore[no-untyped-def]
            return super().forward(ids_BL) / 0.0 * 0.0

    with pytest.raises(Unavailable, match="two_tower@1 gave a score that is not a finite number"):
        write_two_tower(tmp_path, Broken())


def altered(bundle: Path, root: Path, alter: Callable[[Path], None]) -> Bundle:
    """Return a bundle like another one with some files altered before it was written."""
    original = open_bundle(bundle).manifest

    def fill(folder: Path) -> None:
        for name in original.files:
            (folder / name).write_bytes((bundle / name).read_bytes())
        alter(folder)

    return open_bundle(write_bundle(root, original, fill))


def test_an_index_of_other_items_is_refused(models: Path, tmp_path: Path) -> None:
    def drop_an_item(folder: Path) -> None:
        index = faiss.IndexFlatIP(WIDTH)
        index.add(item_vectors(seeded_words())[1:])
        faiss.write_index(index, str(folder / "index.faiss"))

    bundle = altered(models / "two_tower" / VERSION, tmp_path, drop_an_item)
    with pytest.raises(MismatchedBundle, match=r"index\.faiss: holds 199 vectors for 200 items"):
        open_servable(bundle, "cpu")


@pytest.mark.parametrize("missing", ["index.faiss", "features.json"])
def test_a_missing_file_is_named(models: Path, tmp_path: Path, missing: str) -> None:
    bundle = altered(models / "two_tower" / VERSION, tmp_path, lambda folder: (folder / missing).unlink())
    with pytest.raises(MismatchedBundle, match=missing):
        open_servable(bundle, "cpu")


def test_an_engine_of_another_stage_is_refused(tmp_path: Path) -> None:
    described = manifest("odd", Stage.RANKING, "lexical")
    bundle = open_bundle(write_bundle(tmp_path, described, write_items))
    with pytest.raises(
        MismatchedBundle, match="engine 'lexical' is none for ranking: multi_task, three_tower"
    ):
        open_servable(bundle, "cpu")


def test_searches_encoded_together_are_encoded_as_alone(tmp_path: Path) -> None:
    bundle = open_bundle(write_two_tower(tmp_path, seeded_words()))
    engine = open_servable(bundle, "cpu")
    assert isinstance(engine, TwoTower)
    asked = [engine.encoder.encode_request(context(query)) for query in ("red mug", "black clock", "")]
    alone = [engine.vectors.of(features) for features in asked]
    sizes: list[int] = []

    def encode(features: Arrays) -> Floats:
        sizes.append(len(next(iter(features.values()))))
        (vector_BD,) = open_runner(bundle, QUERY_TOWER, "cpu")(features).values()
        return vector_BD

    encode_together = together(encode)
    with ThreadPoolExecutor(3) as threads:
        for expected, found in zip(alone, threads.map(encode_together, asked), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sum(sizes) == 3
