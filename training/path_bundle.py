"""The bundle of a deep_retrieval channel: the query tower, the paths and the vectors that re-score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.catalogue import ITEM_VECTORS_FILE
from shards.deep_retrieval import DeepRetrieval, DeepRetrievalParams
from shards.forward_index import ForwardIndex
from shards.json_codec import to_json
from shards.path_index import PATHS_FILE
from shards.search_context import SearchContext
from training.channels import GOLDEN_K, Destination
from training.embedding import Embedding
from training.embedding_bundle import item_vectors, query_vectors, write_with_query_tower
from training.snapshot import Snapshot


def write_paths(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
) -> None:
    """Write the bundle; its goldens are the answers to `contexts` from the eager model's vectors."""
    assert embedding.paths is not None, "a recipe with such a channel trains paths"
    vector_ND = item_vectors(embedding)
    index = embedding.paths.index()
    params = DeepRetrievalParams(beam=embedding.paths.training.beam)
    engine = DeepRetrieval(
        items=ForwardIndex(snapshot.items),
        encoder=embedding.encoder,
        vectors=query_vectors(embedding),
        paths=index,
        vector_ND=vector_ND,
        params=params,
    )

    def add(folder: Path) -> None:
        index.save(folder / PATHS_FILE)
        np.save(folder / ITEM_VECTORS_FILE, vector_ND, allow_pickle=False)

    write_with_query_tower(
        name,
        embedding,
        snapshot,
        contexts,
        [engine.retrieve(context, GOLDEN_K, (), (), 0) for context in contexts],
        destination,
        engine="deep_retrieval",
        sizes={"items": len(vector_ND), "embedding": vector_ND.shape[1], "paths": len(index.path_C)},
        params=to_json(params),
        add=add,
    )
