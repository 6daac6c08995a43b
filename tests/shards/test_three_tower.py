from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.bundle import open_bundle, write_bundle
from shards.candidates import EMPTY, Candidates
from shards.errors import CorruptBundle, InvalidInput, MismatchedBundle, Unavailable
from shards.servable import open_servable
from shards.stages import Scorer
from shards.three_tower import ThreeTower
from tests.shards.bundles import (
    CROSS,
    VERSION,
    all_items,
    context,
    item_vectors,
    seeded_words,
    write_three_tower,
)
from tests.shards.programs import WIDTH, Interaction, Words

Open = Callable[[str], Scorer]


def test_candidates_are_scored_and_sorted(scorer: Open) -> None:
    scored = scorer("pre_ranker").score(context("red mug"), all_items(), 3, {}, ("title",), 1)
    assert len(scored) == 3
    assert scored.item_ids[0] == "item-000"
    assert scored.attributes == {"title": ("RED MUG",)}
    assert set(scored.columns) == {"score"}
    assert (np.diff(scored.columns["score"]) <= 0).all()


def test_keep_0_returns_all(scorer: Open) -> None:
    assert len(scorer("pre_ranker").score(context(), all_items(), 0, {}, (), 0)) == 200


def test_scores_are_those_of_the_model_in_eager_mode(tmp_path: Path) -> None:
    words, head = seeded_words(5), Interaction(len(CROSS))
    bundle = open_bundle(write_three_tower(tmp_path, seeded_words(5)))
    engine = open_servable(bundle, "cpu")
    assert isinstance(engine, ThreeTower)
    asking, candidates = context("red mug", "item-003"), all_items(**{"lexical.rank": range(1, 201)})
    request = engine.encoder.encode_request(asking)
    cross = engine.encoder.encode_cross(asking, np.arange(200), candidates)
    with torch.no_grad():
        user = words(torch.from_numpy(request["query_ngrams"]))
        expected = head(user, torch.from_numpy(item_vectors(words)), torch.from_numpy(cross)).numpy()
    scored = engine.score(asking, candidates, 0, {}, (), 0)
    rows = [int(item_id.removeprefix("item-")) for item_id in scored.item_ids]
    np.testing.assert_allclose(scored.columns["score"], expected[rows], atol=1e-5)


def test_scores_do_not_depend_on_the_company(scorer: Open) -> None:
    engine = scorer("pre_ranker")
    together = engine.score(context("blue teapot"), all_items(), 0, {}, (), 0)
    alone = engine.score(context("blue teapot"), Candidates(item_ids=("item-014",)), 0, {}, (), 0)
    at = together.item_ids.index("item-014")
    assert alone.columns["score"][0] == pytest.approx(float(together.columns["score"][at]), abs=1e-6)


def test_columns_of_earlier_stages_are_read(scorer: Open) -> None:
    engine = scorer("pre_ranker")
    plain = engine.score(context(), all_items(), 0, {}, (), 0)
    ranked = engine.score(context(), all_items(**{"lexical.rank": range(1, 201)}), 0, {}, (), 0)
    assert not np.array_equal(plain.columns["score"], ranked.columns["score"])


def test_unknown_items_are_left_out(scorer: Open) -> None:
    candidates = Candidates(
        item_ids=("nowhere", "item-000", "gone", "item-001"),
        columns={"lexical.rank": np.array([1, 2, 3, 4], np.float32)},
    )
    known = candidates.take(np.array([1, 3]))
    engine = scorer("pre_ranker")
    scored = engine.score(context(), candidates, 0, {}, ("title",), 10)
    expected = engine.score(context(), known, 0, {}, ("title",), 10)
    assert scored.item_ids == expected.item_ids
    assert scored.attributes == expected.attributes
    np.testing.assert_array_equal(scored.columns["score"], expected.columns["score"])


@pytest.mark.parametrize("candidates", [EMPTY, Candidates(item_ids=("nowhere",))])
def test_nothing_known_gives_nothing(scorer: Open, candidates: Candidates) -> None:
    scored = scorer("pre_ranker").score(context(), candidates, 5, {}, ("title",), 5)
    assert scored.item_ids == ()
    assert scored.columns["score"].shape == (0,)


def test_equal_scores_keep_their_order(scorer: Open) -> None:
    twice = Candidates(item_ids=("item-007", "item-003", "item-007", "item-003"))
    scored = scorer("pre_ranker").score(context(), twice, 0, {}, (), 0)
    assert scored.item_ids in (
        ("item-007", "item-007", "item-003", "item-003"),
        ("item-003", "item-003", "item-007", "item-007"),
    )


def test_an_unknown_attribute_is_the_callers_mistake(scorer: Open) -> None:
    with pytest.raises(InvalidInput, match=r"attributes\[0\]: 'size'"):
        scorer("pre_ranker").score(context(), all_items(), 1, {}, ("size",), 1)


def test_a_model_that_gives_nan_is_unavailable(tmp_path: Path) -> None:
    class Broken(Words):
        def forward(self, ids_BL):  # type: ignore[no-untyped-def]
            return super().forward(ids_BL) / 0.0 * 0.0

    with pytest.raises(Unavailable, match="pre_ranker@1 gave a score that is not a finite number"):
        write_three_tower(tmp_path, Broken())


def with_vectors(models: Path, root: Path, write: Callable[[Path], None]) -> Path:
    original = models / "pre_ranker" / VERSION
    described = open_bundle(original).manifest

    def fill(folder: Path) -> None:
        for name in described.files:
            (folder / name).write_bytes((original / name).read_bytes())
        write(folder / "item_vectors.npy")

    return write_bundle(root, described, fill)


def test_half_precision_vectors_serve(models: Path, tmp_path: Path, scorer: Open) -> None:
    half = item_vectors(seeded_words()).astype(np.float16)
    path = with_vectors(models, tmp_path, lambda file: np.save(file, half))
    engine = open_servable(open_bundle(path), "cpu")
    assert isinstance(engine, Scorer)
    first, second = (e.score(context(), all_items(), 0, {}, (), 0) for e in (engine, scorer("pre_ranker")))
    np.testing.assert_allclose(first.columns["score"], second.columns["score"], atol=2e-3)


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        (np.zeros((199, WIDTH), np.float32), r"is float32 \(199, 16\), not a vector for each of 200 items"),
        (np.zeros((200, WIDTH), np.int64), "is int64"),
        (np.zeros(200, np.float32), r"is float32 \(200,\)"),
    ],
)
def test_vectors_of_other_items_are_refused(
    models: Path, tmp_path: Path, vectors: np.ndarray, problem: str
) -> None:
    path = with_vectors(models, tmp_path, lambda file: np.save(file, vectors))
    with pytest.raises(MismatchedBundle, match=rf"item_vectors\.npy: {problem}"):
        open_servable(open_bundle(path), "cpu")


def test_a_file_that_holds_no_vectors_is_corrupt(models: Path, tmp_path: Path) -> None:
    def garbage(file: Path) -> None:
        file.write_bytes(b"\x93NUMPY")

    path = with_vectors(models, tmp_path, garbage)
    with pytest.raises(CorruptBundle, match=r"item_vectors\.npy: cannot be read"):
        open_servable(open_bundle(path), "cpu")
