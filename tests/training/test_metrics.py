import math

import numpy as np
import pytest

from training.evaluation.metrics import (
    auc,
    expected_calibration_error,
    gauc,
    hit_rate_at,
    hits_of_ranks,
    log_loss,
    mrr_at,
    ndcg_at,
    p90_items,
    recall_at,
)

# Three queries: hits at places 1 and 3 of three relevant items, at place 4 of one, and nowhere of two.
HITS = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
RELEVANT = np.array([3, 1, 2])


def test_recall() -> None:
    np.testing.assert_allclose(recall_at(HITS, RELEVANT, 2), [1 / 3, 0, 0])
    np.testing.assert_allclose(recall_at(HITS, RELEVANT, 4), [2 / 3, 1, 0])


def test_hit_rate() -> None:
    np.testing.assert_array_equal(hit_rate_at(HITS, 3), [1, 0, 0])
    np.testing.assert_array_equal(hit_rate_at(HITS, 4), [1, 1, 0])


def test_mrr() -> None:
    np.testing.assert_allclose(mrr_at(HITS, 3), [1, 0, 0])
    np.testing.assert_allclose(mrr_at(HITS, 4), [1, 0.25, 0])


def test_ndcg() -> None:
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    np.testing.assert_allclose(ndcg_at(HITS, RELEVANT, 4), [1.5 / ideal, 1 / math.log2(5), 0])
    # With k below the number of relevant items the ideal list is full of hits.
    np.testing.assert_allclose(ndcg_at(HITS, RELEVANT, 1), [1, 0, 0])


def test_a_perfect_list_scores_one() -> None:
    hits = np.array([[1, 1, 0]], dtype=bool)
    assert ndcg_at(hits, np.array([2]), 3)[0] == pytest.approx(1)
    assert recall_at(hits, np.array([2]), 3)[0] == 1


def test_lists_shorter_than_k_count_as_far_as_they_go() -> None:
    assert ndcg_at(np.array([[0, 1]], dtype=bool), np.array([1]), 10)[0] == pytest.approx(1 / math.log2(3))


def test_a_query_with_nothing_relevant_scores_zero_and_not_nan() -> None:
    nothing = np.zeros((1, 3), dtype=bool)
    assert recall_at(nothing, np.array([0]), 3)[0] == 0
    assert ndcg_at(nothing, np.array([0]), 3)[0] == 0


def test_hits_of_ranks() -> None:
    expected = [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(hits_of_ranks(np.array([2, 0, 4, 1]), 3), np.array(expected, dtype=bool))


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        mrr_at(HITS, 0)


def test_auc() -> None:
    labels = np.array([0, 0, 1, 1], dtype=bool)
    assert auc(labels, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.75)
    assert auc(labels, np.array([0.0, 0.1, 0.2, 0.3])) == 1
    assert auc(labels, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    # Pairs (0.2, 0.5), (0.2, 0.5), (0.5, 0.5), (0.5, 0.5): two won and two tied.
    assert auc(labels, np.array([0.2, 0.5, 0.5, 0.5])) == 0.75
    assert math.isnan(auc(np.ones(2, dtype=bool), np.array([0.1, 0.2])))


def test_gauc_ranks_within_groups_only() -> None:
    labels = np.array([1, 0, 1, 0, 0, 1], dtype=bool)
    scores = np.array([0.2, 0.1, 0.8, 0.7, 0.9, 0.5])
    # Group 7: one pair, won. Group 3: pairs .8 > .7 and .8 < .9, half won. Group 5 has one class.
    groups = np.array([7, 7, 3, 3, 3, 5])
    assert gauc(labels, scores, groups) == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert math.isnan(gauc(labels, scores, np.arange(6)))


def test_log_loss() -> None:
    labels = np.array([1, 0], dtype=bool)
    assert log_loss(labels, np.array([0.8, 0.4])) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert math.isfinite(log_loss(labels, np.array([0.0, 1.0])))


def test_expected_calibration_error() -> None:
    labels = np.array([1, 0, 1, 1], dtype=bool)
    probabilities = np.array([0.3, 0.3, 0.9, 1.0])
    # Two bins: (0.3, 0.3) predict 0.6 hits and see 1; (0.9, 1.0) predict 1.9 and see 2.
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx((0.4 + 0.1) / 4)
    assert expected_calibration_error(labels, labels.astype(float)) == 0


def test_ninety_percent_of_the_places_are_filled_by_few_items() -> None:
    # Ten places: a fills six, b three, c one.
    lists = [("a", "b", "x"), ("a", "b", "x"), ("a", "b"), ("a", "c"), ("a", "a")]
    assert p90_items(lists, 2) == 2
    assert p90_items([("a",), ("b",)], 1) == 2
    assert p90_items([(), ()], 2) == 0
