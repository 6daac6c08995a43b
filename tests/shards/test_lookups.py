"""Several query vectors of one search: unions and shares, and the engine that looks up so."""

from pathlib import Path

import faiss
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shards.ann_index import AnnIndex
from shards.bundle import open_bundle
from shards.candidates import Floats
from shards.forward_index import Mask
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.interests import unit
from shards.lookups import look_up, look_up_each
from shards.partition_files import check_can_split
from shards.release import Stage
from shards.servable import open_servable
from tests.shards import bundles
from tests.shards.programs import WIDTH, QueryTower, Words, export, spec

D, N = 8, 60


def index_of(vector_ND: Floats, factory: str = "Flat") -> AnnIndex:
    index = faiss.index_factory(vector_ND.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vector_ND)
    index.add(vector_ND)
    return AnnIndex(index)


def vectors(rows: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return unit(drawn)


@given(seed=st.integers(0, 1000), heads=st.integers(1, 4), k=st.integers(1, N + 5), filtered=st.booleans())
def test_the_union_is_scored_by_the_best_head(seed: int, heads: int, k: int, filtered: bool) -> None:
    vector_ND, vector_HD = vectors(N, seed), vectors(heads, seed + 1)
    allowed_N: Mask | None = np.arange(N) % 3 > 0 if filtered else None
    scores, rows = look_up(index_of(vector_ND), vector_HD, k, allowed_N)
    best_N = (vector_HD @ vector_ND.T).max(axis=0)
    best_N = best_N if allowed_N is None else np.where(allowed_N, best_N, -np.inf)
    expected = np.argsort(-best_N, kind="stable")[: min(k, int(np.isfinite(best_N).sum()))]
    np.testing.assert_allclose(scores, best_N[expected], atol=1e-6)
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_allclose(best_N[rows], scores, atol=1e-6)


@given(seed=st.integers(0, 1000), k=st.integers(1, N + 5))
def test_every_vector_has_its_share_and_the_list_is_full(seed: int, k: int) -> None:
    ann, vector_HD = index_of(vectors(N, seed)), vectors(3, seed + 1)
    scores, rows = look_up_each(ann, vector_HD, k)
    assert len(rows) == len(set(rows.tolist())) == min(k, N)
    assert (np.diff(scores) <= 0).all()
    for vector_D in vector_HD:
        assert set(ann.search(vector_D[np.newaxis], k // 3)[1].tolist()) <= set(rows.tolist())
    again = look_up_each(ann, vector_HD, len(rows))
    assert again[1].tolist() == rows.tolist(), "goldens ask for as many as there were"


def test_int8_vectors_are_searched_as_they_are() -> None:
    code_ND = np.clip(np.round(vectors(N, 3) * 128), -128, 127).astype(np.float32)
    ann = index_of(code_ND, "SQ8_direct_signed")
    scores, rows = ann.search(code_ND[:1], 5)
    exact_N = code_ND @ code_ND[0]
    assert scores.tolist() == sorted(exact_N.tolist(), reverse=True)[:5]
    assert rows[0] == 0


class TwoHeads(nn.Module):
    """The query, and what was bought, apart."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.tower = QueryTower(words, len(bundles.ITEMS))

    def forward(self, query_ngrams: Tensor, history_items: Tensor) -> Tensor:
        nothing = torch.zeros_like(query_ngrams)
        one_BD = self.tower(query_ngrams, history_items)
        other_BD = self.tower(nothing, history_items)
        return torch.stack([one_BD, other_BD], dim=1)


def write_heads(root: Path) -> Path:
    """Write a bundle whose query tower has two heads."""
    words = bundles.seeded_words()
    tower = TwoHeads(words)
    lengths = {"query_ngrams": bundles.QUERY_NGRAMS.max_len, "history_items": bundles.HISTORY.max_len}
    example = {name: bundles.ids(2, length) for name, length in lengths.items()}
    programs = {"query_tower": spec("query_tower.pt2", example, output="vector", varying=tuple(example))}

    def fill(folder: Path) -> None:
        bundles.write_spec(folder, bundles.QUERY_NGRAMS, bundles.HISTORY, bundles.TITLE_NGRAMS)
        export(tower, example, folder / "query_tower.pt2", varying=tuple(example))
        index = faiss.IndexFlatIP(WIDTH)
        index.add(bundles.item_vectors(words))
        faiss.write_index(index, str(folder / "index.faiss"))

    described = bundles.manifest("heads", Stage.RETRIEVAL, "two_tower", programs=programs)
    return bundles.write(root, described, fill)


def test_a_bundle_of_two_heads_answers_by_the_better_one(tmp_path: Path) -> None:
    bundle = open_bundle(write_heads(tmp_path))
    engine = open_servable(bundle, "cpu")
    replay(engine, read_golden(bundle.file(GOLDEN_FILE)), 1e-5, 1e-6)
    found = engine.retrieve(bundles.context("red mug", "item-117"), 200, (), (), 0)  # type: ignore[union-attr]
    assert found.item_ids[0] == "item-000"
    assert len(found) == 200
    check_can_split(bundle.manifest)
