"""Items similar to an item by who likes both: item CF (channel C1) and Swing (C2).

Each gives, for every item, its nearest items; a user's interest is then Σ like · sim over the items that
they like, which the engine "table" adds up. Legend: U = users, N = items.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from training.keyed_table import Best, best_of, keyed_table
from training.sparse_rows import Floats, Ints, SparseRows


def item_cf(
    items: pa.Table, like_UN: SparseRows, *, target_UN: SparseRows | None = None, shrink: float, top: int
) -> pa.Table:
    """Return every item's nearest items by the cosine of who likes them, shrunk where few do.

    sim(i, j) = Σ_u like(u,i) · like'(u,j) / (√(Σ_u like(u,i)² · Σ_u like'(u,j)²) + shrink), where like' is
    like, or `target_UN` where other things make an item worth recommending than make it tell of a user.
    Source: Linden, Smith and York, "Amazon.com Recommendations", 2003; the shrinkage is Bell and Koren's,
    "Scalable Collaborative Filtering with Jointly Derived Neighborhood Interpolation Weights", 2007.
    """
    liked_by = like_UN.transposed()
    wanted_UN = target_UN or like_UN
    norm_N, wanted_norm_N = liked_by.norms(), wanted_UN.transposed().norms()

    def similar(item: int) -> tuple[Ints, Floats]:
        rows_M, total_M = wanted_UN.weighted_entries(*liked_by.row(item))
        return rows_M, total_M / np.maximum(norm_N[item] * wanted_norm_N[rows_M] + shrink, 1e-12)

    return _neighbours(items, similar, top=top)


def swing(
    items: pa.Table,
    like_UN: SparseRows,
    *,
    alpha: float = 1.0,
    user_weights: bool = False,
    most_users: int = 500,
    top: int,
) -> pa.Table:
    """Return every item's nearest items by Swing: pairs of users who share little else count for more.

    sim(i, j) = Σ over pairs {u, v} who both like i and j of w_u · w_v / (alpha + |I_u ∩ I_v|), where I_u are
    the items that u likes and w_u is 1 or, with `user_weights`, 1/√|I_u|. Of an item that more users like,
    those who like it most, by `like_UN`, take part. Source: Yang et al., "Large Scale Product Graph
    Construction for Recommendation in E-commerce", 2020, section 3.
    """
    liked_by = like_UN.transposed()
    count_U = np.maximum(np.diff(like_UN.starts), 1)
    weight_U = 1.0 / np.sqrt(count_U) if user_weights else np.ones(len(like_UN))
    likes_UN = SparseRows(
        starts=like_UN.starts,
        column_E=like_UN.column_E,
        value_E=np.ones_like(like_UN.value_E),
        width=like_UN.width,
    )

    def similar(item: int) -> tuple[Ints, Floats]:
        users, like = liked_by.row(item)
        users = users[np.argsort(-like, kind="stable")[:most_users]]
        if len(users) < 2:
            return np.zeros(0, np.int64), np.zeros(0)
        both_UN = likes_UN.dense(users)
        pair_UU = weight_U[users][:, None] * weight_U[users] / (alpha + both_UN @ both_UN.T)
        np.fill_diagonal(pair_UU, 0.0)
        # Every pair is there twice, as (u, v) and as (v, u).
        score_N = ((pair_UU.astype(np.float32) @ both_UN) * both_UN).sum(axis=0) / 2
        rows_M = np.flatnonzero(score_N)
        return rows_M, score_N[rows_M]

    return _neighbours(items, similar, top=top)


def _neighbours(items: pa.Table, similar: Callable[[int], tuple[Ints, Floats]], *, top: int) -> pa.Table:
    """Return the table of what `similar` finds for each item, which is rows and their scores."""
    item_ids = items.column("item_id").to_pylist()
    found: dict[str, Best] = {}
    for item, item_id in enumerate(item_ids):
        rows_M, score_M = similar(item)
        best, scores = best_of(np.where(rows_M == item, 0.0, score_M), top)
        found[item_id] = rows_M[best], scores
    return keyed_table(items, found)
