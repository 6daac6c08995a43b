"""Engine "two_tower": the query tower and the index of item vectors answer together.

Files: program "query_tower" (request features by name → a vector [1, D], or one of each head [1, H, D]),
index.faiss (inner product, ids are rows of items.parquet), features.json, second_vectors.npy where a second
model orders what the first one finds, and item_clusters.npz where clusters share an answer. Shards do not
run program "item_tower" (item features → vectors [N, D]): it is there to embed other items; nor do they read
parameters.npz, which a later training goes on from. Params: "ann", how far the index looks, as `headrace tune
ann` found it; what the index says itself by default; "radius", "first", "clusters" and "stored_vectors". A
search looks up each of its vectors: `shards.lookups`. Legend: B = requests, H = heads, D = width of a vector,
N = items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shards.ann_cascade import SECOND_FILE, open_cascade
from shards.ann_index import AnnIndex, AnnKnobs
from shards.batching import Batches
from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates, Floats
from shards.catalogue import answer, check_finite, open_encoder, open_items, read_params
from shards.errors import MismatchedBundle
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.item_clusters import CLUSTERS_FILE, open_clustered
from shards.lookups import VectorIndex, look_up
from shards.manifest import Manifest
from shards.program_inputs import Arrays
from shards.query_vectors import QueryVectors
from shards.release import ModelVersion
from shards.runner import Runner, open_runner
from shards.search_context import Filter, SearchContext
from shards.stored_vectors import read_stored

INDEX_FILE = "index.faiss"
PARAMETERS_FILE = "parameters.npz"
QUERY_TOWER = "query_tower"
ITEM_TOWER = "item_tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerParams:
    """Settings of the engine."""

    ann: AnnKnobs = field(default_factory=AnnKnobs)
    index: str = ""
    """FAISS factory string of the index, for the reader; empty where nobody tuned it."""
    radius: float | None = None
    """The least score of an answer; None for the nearest however far."""
    first: int = 0
    """Neighbours by the first of two models that the second puts in order; 0 where there is one model."""
    clusters: int = 1
    """The nearest clusters of items that share an answer; with 1 nothing is clustered."""
    stored_vectors: bool = False
    """Whether users are asked for by the vector that is stored with them, where there is one of this version:
    `shards.stored_vectors`. The query tower makes it otherwise."""

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("first must not be negative")
        if self.clusters < 1:
            raise ValueError("clusters must be at least 1")
        if self.clusters > 1 and self.first:
            raise ValueError("clusters and first do not go together")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTower:
    """Encodes the search into a vector, or several, and finds the items nearest to them."""

    items: ForwardIndex
    encoder: RequestEncoder
    vectors: QueryVectors
    ann: VectorIndex
    radius: float | None = None
    stored_of: ModelVersion | None = None
    """The version whose stored vectors stand in for the query tower; None where none do."""

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the `k` nearest allowed items within the radius; InvalidInput for an unknown attribute."""
        allowed_N = self.items.allowed(allowed) if allowed else None
        scores, rows = look_up(self.ann, self.encode(context), k, allowed_N)
        if self.radius is not None:
            near = int((scores >= self.radius).sum())
            scores, rows = scores[:near], rows[:near]
        return answer(self.items, rows, {SCORE: scores}, attributes, attribute_count)

    def exactly(self) -> "TwoTower | None":
        """Return the engine over an exact search; None where its own is exact."""
        return None if self.ann.exact else replace(self, ann=self.ann.exactly())

    def encode(self, context: SearchContext) -> Floats:
        """Return the query vectors of a search, one of each head [H, D]."""
        if self.stored_of is not None:
            vector_HD = read_stored(context.user.features, self.stored_of, self.ann.width)
            if vector_HD is not None:
                return vector_HD
        vector_BHD = self.vectors.of(self.encoder.encode_request(context))
        return vector_BHD.reshape(-1, vector_BHD.shape[-1])


def open_two_tower(bundle: Bundle, device: str) -> TwoTower:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    params = read_params(TwoTowerParams, bundle)
    ann = AnnIndex.open(bundle.file(INDEX_FILE), device, params.ann)
    if len(ann) != len(items):
        raise MismatchedBundle(INDEX_FILE, f"holds {len(ann)} vectors for {len(items)} items")
    return TwoTower(
        items=items,
        encoder=open_encoder(bundle, items),
        vectors=open_query_vectors(bundle, device),
        ann=_asked(ann, params, bundle),
        radius=params.radius,
        stored_of=_whole(bundle.manifest) if params.stored_vectors else None,
    )


def _asked(ann: AnnIndex, params: TwoTowerParams, bundle: Bundle) -> VectorIndex:
    """Return what searches ask: the index alone, or one with what a second model or clusters add."""
    if params.first:
        return open_cascade(ann, bundle.file(SECOND_FILE), params.first)
    return open_clustered(ann, bundle.file(CLUSTERS_FILE), params.clusters) if params.clusters > 1 else ann


def _whole(manifest: Manifest) -> ModelVersion:
    """Return the model, by its name before it was divided."""
    return ModelVersion(manifest.partition.model if manifest.partition else manifest.name, manifest.version)


def open_query_vectors(bundle: Bundle, device: str) -> QueryVectors:
    """Return what makes the vector of a search by the query tower; MismatchedBundle where there is none."""
    return QueryVectors(_encoder(bundle, open_runner(bundle, QUERY_TOWER, device), device))


def _encoder(bundle: Bundle, query_tower: Runner, device: str) -> Callable[[Arrays], Floats]:
    """Return what encodes a search; on a GPU those that come at once go together, if the program can."""

    def encode(features: Arrays) -> Floats:
        (vector_BHD,) = query_tower(features).values()
        check_finite(vector_BHD, bundle)
        return np.ascontiguousarray(vector_BHD, dtype=np.float32)

    any_number = all(tensor.shape[:1] == (None,) for tensor in query_tower.spec.inputs)
    return together(encode) if device.startswith("cuda") and any_number else encode


def together(encode: Callable[[Arrays], Floats]) -> Callable[[Arrays], Floats]:
    """Return `encode` for threads: what they ask at the same time is one call."""

    def encode_all(asked: Sequence[Arrays]) -> Sequence[Floats]:
        stacked = {name: np.concatenate([features[name] for features in asked]) for name in asked[0]}
        vector_BHD = encode(stacked)
        return [vector_BHD[b : b + 1] for b in range(len(asked))]

    return Batches(encode_all).answer
