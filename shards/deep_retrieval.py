"""Engine "deep_retrieval": the items on the likeliest paths of a search, ranked by their vectors.

Deep Retrieval (arXiv 2007.07203): a beam search over layers of nodes finds paths, a table the items on them,
and the softmax model that was trained with the paths re-scores those alone: the inner product of its vectors.
Files: program "query_tower" (request features by name → one vector [1, D]), paths.npz (`PathIndex`),
item_vectors.npy ([N, D], in the order of items.parquet), features.json.
Legend: D = width of a vector, N = items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import Candidates, Floats
from shards.catalogue import (
    ITEM_VECTORS_FILE,
    best_allowed,
    open_encoder,
    open_items,
    read_item_vectors,
    read_params,
)
from shards.errors import MismatchedBundle
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex, Mask
from shards.path_index import PATHS_FILE, PathIndex
from shards.query_vectors import QueryVectors
from shards.search_context import Filter, SearchContext
from shards.two_tower import open_query_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepRetrievalParams:
    """How many paths a search follows: `beam`, and up to `widest` where those held too few items."""

    beam: int = 32
    widest: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.beam <= self.widest:
            raise ValueError("beam must be at least 1 and at most widest")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepRetrieval:
    """Follows the likeliest paths of a search and ranks what lies on them."""

    items: ForwardIndex
    encoder: RequestEncoder
    vectors: QueryVectors
    paths: PathIndex
    vector_ND: Floats
    params: DeepRetrievalParams

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items on the paths; InvalidInput for an unknown attribute."""
        allowed_N = self.items.allowed(allowed) if allowed else None
        vector_1D = self.vectors.of(self.encoder.encode_request(context))
        rows = self.reached(vector_1D, k, allowed_N)
        scores = (self.vector_ND[rows] @ vector_1D[0]).astype(np.float64)
        return best_allowed(self.items, rows, scores, k, (), attributes, attribute_count)

    def reached(self, vector_1D: Floats, k: int, allowed_N: Mask | None = None) -> NDArray[np.int64]:
        """Return the rows of the allowed items that are scored: at least `k` where there are so many.

        Where the widest search finds too few that a filter allows, all that it allows are scored.
        """
        beam = self.params.beam
        while True:
            rows = self.paths.reached(vector_1D, beam)
            rows = rows if allowed_N is None else rows[allowed_N[rows]]
            if len(rows) >= k:
                return rows
            if beam >= self.params.widest:
                return rows if allowed_N is None else np.flatnonzero(allowed_N)
            beam = min(2 * beam, self.params.widest)


def open_deep_retrieval(bundle: Bundle, device: str) -> DeepRetrieval:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    vector_ND = read_item_vectors(bundle.file(ITEM_VECTORS_FILE), len(items))
    paths = PathIndex.open(bundle.file(PATHS_FILE), len(items))
    if paths.width != vector_ND.shape[1]:
        raise MismatchedBundle(PATHS_FILE, f"is for vectors of width {paths.width}, not {vector_ND.shape[1]}")
    return DeepRetrieval(
        items=items,
        encoder=open_encoder(bundle, items),
        vectors=open_query_vectors(bundle, device),
        paths=paths,
        vector_ND=vector_ND,
        params=read_params(DeepRetrievalParams, bundle),
    )
