"""Clusters of users and items at once."""

import numpy as np
import pytest

from training.co_clusters import co_clusters
from training.sparse_rows import SparseRows, sparse_rows


def taken(*, across: float = 0.02) -> SparseRows:
    """Return 60 users who take items of one of three groups of 20, and few others; nobody takes the last."""
    rng = np.random.default_rng(0)
    group_U, group_N = np.arange(60) % 3, np.arange(60) // 20
    took_UN = rng.random((60, 60)) < np.where(group_U[:, None] == group_N, 0.5, across)
    user_E, item_E = took_UN.nonzero()
    return sparse_rows(user_E, item_E, np.ones(len(user_E)), rows=60, width=61)


def test_items_that_the_same_users_take_are_of_one_cluster() -> None:
    found = co_clusters(taken(), clusters=3)
    groups = [set(found[start : start + 20].tolist()) for start in (0, 20, 40)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert set.union(*groups) == {0, 1, 2}
    assert found[60] == -1, "what nobody took belongs nowhere"


def test_equal_seeds_give_equal_clusters() -> None:
    one, again = (co_clusters(taken(across=0.3), clusters=8, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_more_clusters_than_users_and_items_are_refused() -> None:
    with pytest.raises(ValueError, match="200 clusters"):
        co_clusters(taken(), clusters=200)
