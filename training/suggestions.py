"""Queries that a shop may suggest, in the space of its items: found by what users met there or elsewhere.

Bianchi et al. (arXiv 2007.14906): a query lies where the items lie that it led to. The bundle is one of the
engine "two_tower" whose items are queries; histories are read by the catalogue that lies beside them.

Legend: Q = searches, S = suggestions, N = items, D = width.
"""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from shards.ann_index import AnnIndex
from shards.candidates import Floats
from shards.forward_index import ForwardIndex
from shards.search_context import SearchContext
from shards.two_tower import INDEX_FILE, TwoTower
from shards.words import normalised
from training.channels import GOLDEN_K, Destination
from training.datasets.tables import row_numbers
from training.embedding import Embedding
from training.embedding_bundle import (
    item_vectors,
    query_vectors,
    write_catalogue,
    write_with_query_tower,
)
from training.item_index import untuned_index
from training.snapshot import Snapshot

LEAST = 5
"""Searches by which a query is known."""


def suggestion_id(shop: str, query: str) -> str:
    """Return the id of a query in a shop."""
    return f"{shop}/{normalised(query)}"


def suggestions(snapshot: Snapshot, vector_ND: Floats) -> tuple[pa.Table, Floats]:
    """Return the queries of each shop that were made often enough, as items, and their vectors [S, D]."""
    row_Q = row_numbers(snapshot.queries.column("item_id"), snapshot.items.column("item_id"))
    shop_Q = snapshot.items.column("shop").take(pa.array(row_Q)).to_pylist()
    queries = [normalised(query) for query in snapshot.queries.column("query").to_pylist()]
    ids = pa.array([suggestion_id(*pair) for pair in zip(shop_Q, queries, strict=True)]).dictionary_encode()
    number_Q = ids.indices.to_numpy()
    total_SD = np.zeros((len(ids.dictionary), vector_ND.shape[1]), np.float32)
    np.add.at(total_SD, number_Q, vector_ND[row_Q])
    count_S = np.bincount(number_Q, minlength=len(total_SD))
    norm_S = np.linalg.norm(total_SD, axis=1)
    kept = np.flatnonzero((count_S >= LEAST) & (norm_S > 0))
    named = ids.dictionary.take(pa.array(kept))
    table = pa.table(
        {
            "item_id": named,
            "title": [name.partition("/")[2] for name in named.to_pylist()],
            "shop": [name.partition("/")[0] for name in named.to_pylist()],
            "searches": pa.array(count_S[kept]),
        }
    )
    return table, total_SD[kept] / norm_S[kept, np.newaxis]


def write_suggestions(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
) -> None:
    """Write the bundle; its goldens are the answers to `contexts` from the eager model's vectors."""
    table, vector_SD = suggestions(snapshot, item_vectors(embedding))
    index = untuned_index(vector_SD)
    engine = TwoTower(
        items=ForwardIndex(table),
        encoder=embedding.encoder,
        vectors=query_vectors(embedding),
        ann=AnnIndex(index),
    )

    def add(folder: Path) -> None:
        faiss.write_index(index, str(folder / INDEX_FILE))
        write_catalogue(folder, snapshot, embedding.spec)

    write_with_query_tower(
        name,
        embedding,
        snapshot,
        contexts,
        [engine.retrieve(context, GOLDEN_K, (), (), 0) for context in contexts],
        destination,
        engine="two_tower",
        sizes={"items": len(vector_SD), "embedding": vector_SD.shape[1]},
        items=table,
        add=add,
    )
