from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.ablation import Inputs, contributions
from shards.candidates import Floats
from shards.errors import DeadlineExceeded, InvalidInput
from shards.multi_task import MultiTask
from shards.stages import Scorer
from tests.shards.bundles import TASKS, all_items, contexts

INPUTS = Inputs(
    request={"user": np.array([3.0], np.float32)},
    candidates={
        "cross": np.array([[1, 10], [3, 20], [5, 60]], np.float32),
        "kind": np.array([4, 0, 6], np.int64),
        "item": np.array([[1, 1], [2, 0], [0, 2]], np.float32),
    },
    cross_names=("clicks", "price"),
)


@pytest.fixture
def ranker(scorer: Callable[[str], Scorer]) -> MultiTask:
    found = scorer("ranker")
    assert isinstance(found, MultiTask)
    return found


def linear(inputs: dict[str, NDArray[Any]]) -> Floats:
    own = inputs["cross"] @ np.array([2.0, 0.1]) + inputs["kind"] + inputs["item"] @ np.array([1.0, 0.5])
    return np.asarray(own + 10 * inputs["user"], np.float32)


def test_of_a_linear_score_contributions_are_weight_times_distance_from_neutral() -> None:
    score_E, found = contributions(INPUTS, 2, linear, wanted=lambda: True)
    np.testing.assert_allclose(score_E, linear({**INPUTS.request, **INPUTS.candidates})[:2])
    assert found.keys() == {"clicks", "price", "kind", "item", "user"}
    np.testing.assert_allclose(found["clicks"], [2.0 * (1 - 3), 0.0], atol=1e-5)
    np.testing.assert_allclose(found["price"], [0.1 * (10 - 30), 0.1 * (20 - 30)], atol=1e-5)
    np.testing.assert_allclose(found["kind"], [4.0, 0.0])
    np.testing.assert_allclose(found["item"], [0.0, 0.5], atol=1e-5)
    np.testing.assert_allclose(found["user"], [30.0, 30.0])


def test_what_gives_no_finite_score_has_no_contribution() -> None:
    def fragile(inputs: dict[str, NDArray[Any]]) -> Floats:
        with np.errstate(divide="ignore"):
            return linear(inputs) / np.float32(inputs["user"][0])

    _, found = contributions(INPUTS, 3, fragile, wanted=lambda: True)
    assert np.isnan(found["user"]).all()
    assert np.isfinite(found["clicks"]).all()


def test_nothing_is_computed_once_nobody_waits() -> None:
    runs = []

    def counted(inputs: dict[str, NDArray[Any]]) -> Floats:
        runs.append(len(inputs["kind"]))
        return linear(inputs)

    with pytest.raises(DeadlineExceeded):
        contributions(INPUTS, 3, counted, wanted=lambda: False)
    assert runs == [3]


def test_a_ranker_explains_its_own_scores(ranker: MultiTask) -> None:
    context, candidates = contexts()[0], all_items().first(20)
    ranked = ranker.score(context, candidates, 0, {}, (), 0)
    score_of = dict(zip(ranked.item_ids, ranked.columns["score"], strict=True))
    explained = ranker.explain(context, candidates, 3, {}, lambda: True)
    assert explained.item_ids == candidates.item_ids[:3]
    np.testing.assert_allclose(
        explained.columns["score"], [score_of[item_id] for item_id in explained.item_ids], rtol=1e-5
    )
    assert ranker.bundle.spec is not None
    features = set(ranker.bundle.spec.cross_names) | {"query_ngrams", "title_ngrams", "price"}
    assert explained.columns.keys() == features | {"score"}
    assert any(np.abs(explained.columns[name]).max() > 1e-6 for name in features)
    halved = ranker.explain(context, candidates, 3, {TASKS[0]: 1.0}, lambda: True)
    assert not np.allclose(halved.columns["score"], explained.columns["score"])


def test_a_ranker_refuses_exponents_it_has_no_task_for(ranker: MultiTask) -> None:
    with pytest.raises(InvalidInput, match="is no task"):
        ranker.explain(contexts()[0], all_items().first(5), 2, {"nothing": 1.0}, lambda: True)


def test_unknown_items_are_left_out_of_an_explanation(ranker: MultiTask) -> None:
    nobody = all_items().first(2)
    unknown = type(nobody)(item_ids=("none", "nothing"))
    assert len(ranker.explain(contexts()[0], unknown, 2, {}, lambda: True)) == 0
