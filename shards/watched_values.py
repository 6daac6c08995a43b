"""What is watched of one answer: the scores of its best items, and the numbers that they were made from.

The same code reads them in training, for the reference, and on shards, beside the request path.
Legend: C = candidates, K = cross features.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.gathering import CATALOGUE_ROW
from shards.search_context import SearchContext
from shards.stages import Servable

BEST = 10
"""So many items of an answer are watched: how many there are depends on who asks."""

Watched = dict[str, NDArray[np.floating[Any]]]
"""Values by column: "score", tasks, and features as "feature NAME"."""


@runtime_checkable
class Encodes(Protocol):
    """An engine that makes features of a search."""

    @property
    def items(self) -> ForwardIndex:
        """Return its items."""

    @property
    def encoder(self) -> RequestEncoder:
        """Return its encoder."""


def watched_values(
    servable: Servable, context: SearchContext, asked: Candidates | None, answer: Candidates
) -> Watched:
    """Return what is watched of an answer; `asked` are the candidates of a scorer, None for a retriever."""
    best = answer.first(BEST)
    found: Watched = {name: column for name, column in best.columns.items() if name != CATALOGUE_ROW}
    if isinstance(servable, Encodes) and best.item_ids:
        found |= _features(servable, context, _among(asked, best))
    return found


def _among(asked: Candidates | None, best: Candidates) -> Candidates | None:
    """Return the best items as the scorer was asked about them."""
    if asked is None:
        return None
    place = {item: at for at, item in enumerate(asked.item_ids)}
    return asked.take(np.array([place[item] for item in best.item_ids], np.intp))


def _features(servable: Encodes, context: SearchContext, asked: Candidates | None) -> Watched:
    """Return the numbers among the features of the search, and of the candidates where it scores any."""
    request = servable.encoder.encode_request(context)
    found: Watched = {
        f"feature {name}": values.ravel()
        for name, values in request.items()
        if values.dtype.kind == "f" and values.size == 1
    }
    names = servable.encoder.cross_names
    if asked is not None and names:
        cross_CK = servable.encoder.encode_cross(context, servable.items.rows_of(asked.item_ids), asked)
        found |= {f"feature {name}": cross_CK[:, k] for k, name in enumerate(names)}
    return found
