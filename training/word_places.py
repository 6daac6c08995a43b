"""Fits `WordPlaces`: which words of a text its takers name, by their places.

Legend: R = requests, N = items.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.column_encoder import Ids
from shards.search_context import SearchContext
from shards.word_match import item_words

_PRIOR = 30.0
"""Takes of texts of a length that are thought to name all pairs of places alike; of fewer nothing is said."""


def place_lifts(
    item_texts: Sequence[str], contexts: Sequence[SearchContext], taken_R: Ids
) -> tuple[tuple[float, ...], ...]:
    """Return `WordPlaces.lifts` by what requests took: `taken_R` are rows of the texts [N], -1 for none."""
    held = item_words(item_texts)
    longest = held.ids_NL.shape[1]
    count_LPP = np.zeros((longest + 1, longest, longest))
    for asked in np.flatnonzero(taken_R >= 0).tolist():
        row = taken_R[asked]
        (first,), (second,) = held.places(contexts[asked].query, np.array([row]))
        if first >= 0 and second >= 0:
            count_LPP[int(held.count_N[row]), first, second] += 1
    return tuple(_lifts(count_LPP[n, :n, :n]) for n in range(longest + 1))


def _lifts(count_PP: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the log of each pair's share by that of chance, smoothed; none where there are too few."""
    total, pairs = count_PP.sum(), count_PP.size
    if total < _PRIOR:
        return ()
    share_PP = (count_PP + _PRIOR / pairs) / (total + _PRIOR)
    return tuple(np.log(share_PP * pairs).round(4).ravel().tolist())
