"""Recall beside an exact search: what each kind of index misses is seen, and nothing else."""

from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from shards.ann_index import AnnIndex, AnnKnobs, set_knobs
from shards.candidates import Candidates, Floats
from shards.golden import Golden
from shards.live_quality import LiveQuality, Recall, too_low
from shards.recall import Approximate, golden_recall, recall_of
from shards.search_context import Filter, SearchContext
from tests.shards import bundles

COUNT, WIDTH, K = 4_000, 24, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Finds the neighbours of the vector whose number is the query."""

    vectors: Floats
    ann: AnnIndex

    def retrieve(
        self, context: SearchContext, k: int, allowed: Filter, _: tuple[str, ...], __: int, /
    ) -> Candidates:
        allowed_N = np.arange(COUNT) % 10 == 0 if allowed else None
        score_K, row_K = self.ann.search(self.vectors[[int(context.query)]], k, allowed_N)
        return Candidates(item_ids=tuple(map(str, row_K)), columns={"score": score_K})

    def exactly(self) -> "Neighbours | None":
        return None if self.ann.exact else replace(self, ann=self.ann.exactly())


def neighbours(factory: str, knobs: AnnKnobs) -> Neighbours:
    vector_ND = np.random.default_rng(3).normal(size=(COUNT, WIDTH)).astype(np.float32)
    index = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vector_ND)
    index.add(vector_ND)
    set_knobs(index, knobs)
    return Neighbours(vectors=vector_ND, ann=AnnIndex(index))


def asking(row: int) -> SearchContext:
    return SearchContext(query=str(row), now_ms=bundles.NOW_MS)


@pytest.mark.parametrize(
    "factory",
    ["IVF64,Flat", "IVF64,SQ8", "HNSW4,Flat", "PCA16,IVF64,Flat", "IVF64,PQ4,RFlat"],
)
def test_an_index_that_hardly_looks_misses_what_an_exact_search_finds(factory: str) -> None:
    narrow = AnnKnobs(nprobe=1, ef_search=1, k_factor=1.0)
    servable = neighbours(factory, narrow)
    assert isinstance(servable, Approximate)
    found = [recall_of(servable, asking(row), K, ()) for row in range(0, COUNT, 400)]
    assert 0.02 < np.mean([each for each in found if each is not None]) < 0.99


@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "HNSW4,SQ8", "IVF64,Flat,RFlat"])
def test_the_exact_search_is_that_of_numpy_over_the_stored_vectors(factory: str) -> None:
    servable = neighbours(factory, AnnKnobs(nprobe=1))
    exact = servable.ann.exactly()
    exact.make_readable()
    stored_ND = exact.vectors_at(np.arange(COUNT))
    for row in (0, 7, 1999):
        score_N = stored_ND @ servable.vectors[row]
        _, row_K = exact.search(servable.vectors[[row]], K)
        assert score_N[row_K].min() >= np.sort(score_N)[-K] - 1e-4


def test_one_that_looks_everywhere_misses_nothing_with_and_without_a_filter() -> None:
    servable = neighbours("IVF64,Flat", AnnKnobs(nprobe=64))
    for allowed in ((), ("some",)):
        assert recall_of(servable, asking(5), K, allowed) == 1.0  # type: ignore[arg-type]


def test_a_flat_index_is_exact_and_costs_no_second_search() -> None:
    servable = neighbours("Flat", AnnKnobs())
    assert servable.exactly() is None
    assert recall_of(servable, asking(5), K, ()) == 1.0


def test_goldens_tell_the_recall_of_an_engine(tmp_path: Path) -> None:
    from shards.bundle import open_bundle
    from shards.golden import GOLDEN_FILE, read_golden
    from shards.servable import open_servable

    path = bundles.write_two_tower(tmp_path, bundles.seeded_words(), index="IVF16,Flat")
    bundle = open_bundle(path)
    golden = read_golden(bundle.file(GOLDEN_FILE))
    recall = golden_recall(open_servable(bundle, "cpu"), golden)
    assert recall is not None
    assert recall.searches == len(golden.contexts)
    assert 0 < recall.mean < 1
    assert recall.low < recall.mean < recall.high
    lexical = open_servable(open_bundle(bundles.write_lexical(tmp_path)), "cpu")
    assert golden_recall(lexical, Golden(contexts=(), item_ids=(), scores=())) is None


def test_which_recall_counts() -> None:
    few, many = Recall.of(9.0, 10), Recall.of(400.0, 500)
    assert too_low(LiveQuality(golden=few), 0.95, 100) == few
    assert too_low(LiveQuality(golden=few), 0.9, 100) is None
    assert too_low(LiveQuality(golden=Recall.of(8.0, 8), live=many), 0.9, 100) == many
    assert too_low(LiveQuality(golden=few, live=many), 0.85, 501) is None
    assert too_low(LiveQuality(), 1.0, 1) is None


def test_few_searches_tell_little() -> None:
    assert Recall.of(8.0, 8).low < 0.7
    assert Recall.of(800.0, 800).low > 0.99
