"""Next items by implicit 0.7: run as a file, by the peers' own Python, never imported by ours.

`python implicit_lists.py MODEL IN.npz OUT.npz SEED`: MODEL is item_knn_cosine, item_knn_bm25 or als. IN holds
the events by user and in order, `user` and `item` [E], and the number of `items`; OUT gets the first items of
each user, `kept` and `excluded` [U, K], and `training_s`.

Legend: U = users, N = items, E = events, K = items of a list.
"""

import sys
import time

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from scipy.sparse import csr_matrix

LISTED = 20
_BATCH = 1000
_FADES = {"item_knn_cosine": 0.6, "item_knn_bm25": 0.6, "als": 1.0}
"""What each step back in a history leaves of an item's weight where the model answers."""
_NEIGHBOURS = 200


def main(name: str, source: str, target: str, seed: int) -> None:
    """Train and answer."""
    events = np.load(source)
    user_E, item_E = events["user"], events["item"]
    shape = (int(user_E.max()) + 1, int(events["items"]))
    met_UN = csr_matrix((np.ones(len(user_E), np.float32), (user_E, item_E)), shape=shape)
    started = time.perf_counter()
    score = (
        _als(met_UN, seed) if name == "als" else _item_knn(name, met_UN, _fading(name, user_E, item_E, shape))
    )
    training_s = time.perf_counter() - started
    kept, excluded = [], []
    for first in range(0, shape[0], _BATCH):
        users = np.arange(first, min(first + _BATCH, shape[0]))
        score_BN = score(users)
        kept.append(_best(score_BN))
        score_BN[met_UN[users].nonzero()] = -np.inf
        excluded.append(_best(score_BN))
    np.savez(target, kept=np.concatenate(kept), excluded=np.concatenate(excluded), training_s=training_s)


def _fading(name, user_E, item_E, shape):
    """Return each user's interest [U, N]: what is further back counts for less."""
    last = np.append(np.flatnonzero(np.diff(user_E)), len(user_E) - 1)
    back_E = last[np.searchsorted(last, np.arange(len(user_E)))] - np.arange(len(user_E))
    return csr_matrix(((_FADES[name] ** back_E).astype(np.float32), (user_E, item_E)), shape=shape)


def _item_knn(name, met_UN, interest_UN):
    kind = BM25Recommender if name == "item_knn_bm25" else CosineRecommender
    model = kind(K=_NEIGHBOURS)
    model.fit(met_UN, show_progress=False)
    similar_NN = csr_matrix(model.similarity)
    # What an item tells of itself would put the history in front.
    similar_NN.setdiag(0)
    return lambda users: np.asarray((interest_UN[users] @ similar_NN).todense())


def _als(met_UN, seed):
    model = AlternatingLeastSquares(factors=256, random_state=seed, num_threads=1)
    model.fit(met_UN, show_progress=False)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def _best(score_BN):
    best = np.argpartition(-score_BN, LISTED, axis=1)[:, :LISTED]
    order = np.argsort(-np.take_along_axis(score_BN, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
