"""Our metrics against scikit-learn's, on random data with ties."""

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from training.evaluation.metrics import auc, gauc, log_loss, mrr_at, ndcg_at, recall_at

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_lists(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant_QN = rng.random((40, 30)) < 0.15
    relevant_QN[:, 0] = True  # scikit-learn has no opinion where nothing is relevant.
    score_QN = rng.permuted(np.tile(np.arange(30.0), (40, 1)), axis=1)
    order_QN = np.argsort(-score_QN, axis=1)
    hit_QN = np.take_along_axis(relevant_QN, order_QN, axis=1)
    count_Q = relevant_QN.sum(axis=1)
    for k in (1, 5, 30):
        ours = ndcg_at(hit_QN, count_Q, k).mean()
        assert ours == pytest.approx(ndcg_score(relevant_QN, score_QN, k=k))
    one_QN = np.arange(30) == rng.integers(0, 30, 40)[:, None]
    first_QN = np.take_along_axis(one_QN, order_QN, axis=1)
    assert mrr_at(first_QN, 30).mean() == pytest.approx(
        label_ranking_average_precision_score(one_QN, score_QN)
    )
    assert recall_at(first_QN, np.ones(40, np.int64), 30).mean() == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_probabilities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability_N = rng.integers(1, 20, 500) / 20
    label_N = rng.random(500) < probability_N
    assert auc(label_N, probability_N) == pytest.approx(roc_auc_score(label_N, probability_N))
    assert log_loss(label_N, probability_N) == pytest.approx(sklearn_log_loss(label_N, probability_N))
    group_N = rng.integers(0, 10, 500)
    by_group = [
        (roc_auc_score(label_N[mine], probability_N[mine]), mine.sum())
        for mine in (group_N == group for group in range(10))
        if 0 < label_N[mine].sum() < mine.sum()
    ]
    expected = np.average([area for area, _ in by_group], weights=[size for _, size in by_group])
    assert gauc(label_N, probability_N, group_N) == pytest.approx(expected)
