"""Channel C6: the best items of each author, and of authors whom the same users like.

Legend: A = authors, N = items, U = users.
"""

import numpy as np
import pyarrow as pa

from shards.column_encoder import texts
from training.keyed_table import best_of, keyed_table
from training.sparse_rows import Ints, SparseRows, sparse_rows


def author_items(
    items: pa.Table, like_UN: SparseRows, *, column: str, similar_weight: float, top: int
) -> pa.Table:
    """Return for every author in `column` the most liked items of theirs and of similar authors.

    quality(i) = Σ_u like(u,i), and score(a, i) = quality(i) · (1 where i is by a, else similar_weight ·
    sim(a, author of i)), with the cosine sim(a, b) = Σ_u l(u,a) · l(u,b) / √(Σ_u l(u,a)² · Σ_u l(u,b)²) of
    l(u,a) = Σ like(u,i) over the items i by a, after log(1 + x) as a few users buy very much.
    """
    names = np.array(texts(items.column(column).to_pylist()), dtype=object)
    authors, author_N = np.unique(names, return_inverse=True)
    quality_N = np.bincount(like_UN.column_E, weights=like_UN.value_E, minlength=len(items))
    like_AU = _by_author(like_UN, author_N.astype(np.int64), len(authors)).transposed()
    norm_A = np.maximum(like_AU.norms(), 1e-12)
    like_UA = like_AU.transposed()
    found = {}
    for number, author in enumerate(authors.tolist()):
        if not author:
            continue
        users, like = like_AU.row(number)
        similarity_A = similar_weight * like_UA.weighted_sum(users, like) / (norm_A * norm_A[number])
        similarity_A[number] = 1.0
        similarity_A[authors == ""] = 0.0
        found[author] = best_of(similarity_A[author_N] * quality_N, top)
    return keyed_table(items, found)


def _by_author(like_UN: SparseRows, author_N: Ints, authors: int) -> SparseRows:
    """Return log(1 + Σ likes) of each user and author."""
    pair_E = like_UN.entry_rows * authors + author_N[like_UN.column_E]
    pairs, at_E = np.unique(pair_E, return_inverse=True)
    like = np.bincount(at_E, weights=like_UN.value_E, minlength=len(pairs))
    user_E, author_E = np.divmod(pairs, max(authors, 1))
    return sparse_rows(user_E, author_E, np.log1p(like), rows=len(like_UN), width=authors)
