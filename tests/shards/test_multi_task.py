from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shards.bundle import open_bundle, write_bundle
from shards.candidates import EMPTY, Candidates
from shards.errors import InvalidInput, MismatchedBundle
from shards.merging import fuse
from shards.release import Stage
from shards.servable import open_servable
from shards.stages import Scorer
from tests.shards.bundles import (
    QUERY_NGRAMS,
    TASKS,
    TITLE_NGRAMS,
    VERSION,
    all_items,
    context,
    ids,
    item_vectors,
    manifest,
    seeded_words,
    write,
    write_spec,
)
from tests.shards.programs import WIDTH, Words, export, spec

Open = Callable[[str], Scorer]


def test_there_is_a_column_for_each_task_and_a_fused_score(scorer: Open) -> None:
    scored = scorer("ranker").score(context("red mug"), all_items(), 20, {}, ("title",), 20)
    assert len(scored) == len(scored.attributes["title"]) == 20
    assert set(scored.columns) == {"score", *TASKS}
    assert (np.diff(scored.columns["score"]) <= 0).all()
    for task in TASKS:
        assert ((scored.columns[task] > 0) & (scored.columns[task] < 1)).all()


@pytest.mark.parametrize("exponents", [{}, {"click": 1.0, "purchase": 0.5}])
def test_the_bundles_own_exponents_fuse_where_the_caller_has_none(
    scorer: Open, exponents: dict[str, float]
) -> None:
    scored = scorer("ranker").score(context(), all_items(), 0, exponents, (), 0)
    tasks = {task: scored.columns[task] for task in TASKS}
    np.testing.assert_allclose(
        scored.columns["score"], fuse(tasks, {"click": 1.0, "purchase": 0.5}), rtol=1e-6
    )


def test_the_callers_exponents_reorder(scorer: Open) -> None:
    engine = scorer("ranker")
    by_click = engine.score(context(), all_items(), 0, {"click": 1.0}, (), 0)
    by_purchase = engine.score(context(), all_items(), 0, {"purchase": 1.0}, (), 0)
    np.testing.assert_allclose(by_click.columns["score"], by_click.columns["click"], rtol=1e-6)
    np.testing.assert_allclose(by_purchase.columns["score"], by_purchase.columns["purchase"], rtol=1e-6)
    assert by_click.item_ids != by_purchase.item_ids


def test_an_exponent_of_no_task_is_the_callers_mistake(scorer: Open) -> None:
    with pytest.raises(InvalidInput, match=r"task_exponents\[like\]: is no task; there are click, purchase"):
        scorer("ranker").score(context(), all_items(), 0, {"like": 1.0}, (), 0)


def test_scores_do_not_depend_on_the_company(scorer: Open) -> None:
    engine, three = scorer("ranker"), all_items().take(np.array([5, 120, 7]))
    together = engine.score(context("blue teapot"), three, 0, {}, (), 0)
    for row, item_id in enumerate(together.item_ids):
        alone = engine.score(context("blue teapot"), Candidates(item_ids=(item_id,)), 0, {}, (), 0)
        for name, column in alone.columns.items():
            assert column[0] == pytest.approx(float(together.columns[name][row]), abs=1e-6)


def test_unknown_items_are_left_out(scorer: Open) -> None:
    scored = scorer("ranker").score(context(), Candidates(item_ids=("nowhere", "item-009")), 0, {}, (), 0)
    assert scored.item_ids == ("item-009",)


@pytest.mark.parametrize("candidates", [EMPTY, Candidates(item_ids=("nowhere",))])
def test_nothing_known_gives_nothing(scorer: Open, candidates: Candidates) -> None:
    scored = scorer("ranker").score(context(), candidates, 5, {}, (), 0)
    assert scored.item_ids == ()
    assert {name: column.shape for name, column in scored.columns.items()} == dict.fromkeys(
        ("score", *TASKS), (0,)
    )


class VectorScorer(nn.Module):
    """Scores cached item vectors by their cosine with the query, for one task."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words

    def forward(self, query_ngrams: Tensor, item: Tensor) -> Tensor:
        probability_C: Tensor = torch.sigmoid((self.words(query_ngrams) * item).sum(dim=-1))
        return probability_C.unsqueeze(-1)


def test_cached_item_vectors_take_the_place_of_features(tmp_path: Path) -> None:
    example = {"query_ngrams": ids(1, QUERY_NGRAMS.max_len), "item": torch.zeros(3, WIDTH)}
    words = seeded_words()

    def fill(folder: Path) -> None:
        write_spec(folder, QUERY_NGRAMS, TITLE_NGRAMS)
        export(VectorScorer(words), example, folder / "scorer.pt2", varying=("item",))
        np.save(folder / "item_vectors.npy", item_vectors(words).astype(np.float16))

    described = manifest(
        "vectors",
        Stage.RANKING,
        "multi_task",
        programs={"scorer": spec("scorer.pt2", example, output="probabilities", varying=("item",))},
        tasks=("click",),
    )
    engine = open_servable(open_bundle(write(tmp_path, described, fill)), "cpu")
    assert isinstance(engine, Scorer)
    scored = engine.score(context("red mug"), all_items(), 2, {}, (), 0)
    assert scored.item_ids == ("item-000", "item-100")
    np.testing.assert_array_equal(scored.columns["score"], scored.columns["click"])


def test_an_exponent_for_no_task_of_the_bundle_is_refused(models: Path, tmp_path: Path) -> None:
    original = models / "ranker" / VERSION
    bundle = open_bundle(original)
    described = manifest(
        "ranker",
        Stage.RANKING,
        "multi_task",
        programs=bundle.manifest.programs,
        tasks=("click",),
        params={"task_exponents": {"purchase": 1.0}},
    )

    def fill(folder: Path) -> None:
        for name in bundle.manifest.files:
            (folder / name).write_bytes((original / name).read_bytes())

    with pytest.raises(MismatchedBundle, match="has a setting for 'purchase', which is no task of it"):
        open_servable(open_bundle(write_bundle(tmp_path, described, fill)), "cpu")
