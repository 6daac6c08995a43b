"""Bundles that a query tower answers for: the index of item vectors and what else their engines read.

Legend: Q = requests, N = items, D = width of a vector.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from shards.ann_cascade import SECOND_FILE, AnnCascade
from shards.ann_index import AnnIndex, set_knobs
from shards.bundle import write_bundle
from shards.candidates import Candidates, Floats
from shards.catalogue import CATALOGUE_FILE
from shards.feature_kinds import ITEM_ID_COLUMN
from shards.features import FEATURES_FILE, FeatureSpec
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.item_clusters import CLUSTERS_FILE, ClusteredIndex, ItemClusters
from shards.json_codec import to_json
from shards.lookups import VectorIndex
from shards.manifest import Manifest
from shards.program_inputs import Arrays
from shards.query_vectors import QueryVectors
from shards.release import Stage
from shards.search_context import SearchContext
from shards.tokenizer import TOKENIZER_FILE
from shards.two_tower import INDEX_FILE, TwoTowerParams
from shards.two_tower import TwoTower as TwoTowerEngine
from training.channels import GOLDEN_K, Destination
from training.embedding import RECALL_K, Embedding
from training.item_clusters import cluster
from training.item_index import build, untuned_index
from training.models.ensemble import Ensemble
from training.models.hydrated import Hydrated
from training.models.two_tower import TwoTower
from training.parameters import save_parameters
from training.programs import Program, item_tower, query_tower
from training.snapshot import Snapshot
from training.tensors import as_tensors, rows_of


def write_embedding(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
    params: TwoTowerParams = TwoTowerParams(),  # noqa: B008 (frozen)
    *,
    active_within_days: float | None = None,
    clusters: int = 0,
) -> None:
    """Write the bundle; its goldens are the answers to `contexts` from the eager model's vectors.

    Its index holds the items that were acted on within so many days, all of them where that is None. They are
    put into so many `clusters` where the engine's settings ask for such.
    """
    items, row_N = active_items(snapshot.items, active_within_days)
    vector_ND = item_vectors(embedding)[row_N]
    index = _index(np.ascontiguousarray(vector_ND[:, : _indexed(embedding, params)]), params)
    second_NE = np.ascontiguousarray(vector_ND[:, index.d :])
    ann = AnnIndex(index)
    clustered = cluster(vector_ND, clusters) if params.clusters > 1 else None
    engine = TwoTowerEngine(
        items=ForwardIndex(items),
        encoder=embedding.encoder,
        vectors=query_vectors(embedding),
        ann=_asked(ann, params, second_NE, clustered),
        radius=params.radius,
    )

    def add(folder: Path) -> None:
        faiss.write_index(index, str(folder / INDEX_FILE))
        if params.first:
            np.save(folder / SECOND_FILE, second_NE)
        if clustered is not None:
            clustered.save(folder / CLUSTERS_FILE)
        if isinstance(embedding.model, TwoTower):
            save_parameters(embedding.model, folder)
        if len(items) < len(snapshot.items):
            # Towers know items by their row among all of them.
            write_catalogue(folder, snapshot, embedding.spec)

    write_with_query_tower(
        name,
        embedding,
        snapshot,
        contexts,
        [engine.retrieve(context, GOLDEN_K, (), (), 0) for context in contexts],
        destination,
        engine="two_tower",
        sizes={"items": len(vector_ND), "embedding": vector_ND.shape[1]},
        add=add,
        item_programs=() if params.first else _item_programs(embedding),
        params=to_json(params),
        items=items,
    )


def _asked(
    ann: AnnIndex, params: TwoTowerParams, second_NE: Floats, clustered: ItemClusters | None
) -> VectorIndex:
    """Return what searches ask, as a shard opens it."""
    if clustered is not None:
        return ClusteredIndex(index=ann, clusters=clustered, asked=params.clusters)
    return AnnCascade(index=ann, second_NE=second_NE, first=params.first) if params.first else ann


def write_catalogue(folder: Path, snapshot: Snapshot, spec: FeatureSpec) -> None:
    """Write all items as the towers know them, where a bundle's items are others."""
    columns = [ITEM_ID_COLUMN, *spec.history_columns]
    pq.write_table(snapshot.items.select(columns), folder / CATALOGUE_FILE)


def _item_programs(embedding: Embedding) -> Sequence[Program]:
    """Return the item tower, where an item's vector is all its own: hydrated ones hold ranks among all."""
    if isinstance(embedding.model, Hydrated):
        return ()
    return (item_tower(embedding.model, rows_of(embedding.item, torch.arange(2))),)


def active_items(items: pa.Table, within_days: float | None) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the items acted on within so many days, and their rows; all of them where that is None.

    Raises ValueError where there are none.
    """
    if within_days is None:
        return items, np.arange(len(items))
    row_N = np.flatnonzero(items.column("idle_days").to_numpy() <= within_days)
    if not len(row_N):
        raise ValueError(f"no item was acted on within {within_days:g} days")
    return items.take(pa.array(row_N)), row_N


def _indexed(embedding: Embedding, params: TwoTowerParams) -> int | None:
    """Return how much of each vector the index finds by; None for all of it."""
    return embedding.model.first_width if params.first and isinstance(embedding.model, Ensemble) else None


def _index(vector_ND: Floats, params: TwoTowerParams) -> Any:
    """Return the index that the settings name, or one that fits the size of the catalogue."""
    index = build(vector_ND, params.index) if params.index else untuned_index(vector_ND)
    set_knobs(index, params.ann)
    return index


def item_vectors(embedding: Embedding) -> Floats:
    """Return the vectors of all items [N, D]."""
    with torch.inference_mode():
        vector_ND: Floats = embedding.model.encode_item(embedding.item).numpy()
    return vector_ND


def query_vectors(embedding: Embedding) -> QueryVectors:
    """Return what makes the vector of a search by the eager model, for engines that no shard opened."""

    def encode(features: Arrays) -> Floats:
        with torch.inference_mode():
            vector_1D: Floats = embedding.model.encode_query(as_tensors(features)).numpy()
        return vector_1D

    return QueryVectors(encode)


def write_with_query_tower(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    answers: Sequence[Candidates],
    destination: Destination,
    *,
    engine: str,
    sizes: Mapping[str, int],
    add: Callable[[Path], None],
    params: Mapping[str, Any] | None = None,
    items: pa.Table | None = None,
    item_programs: Sequence[Program] = (),
) -> None:
    """Write a bundle of the query tower with what it needs, the goldens, and what `add` puts beside them.

    It finds the snapshot's items, or others where they are given; `item_programs` embed more of them.
    """
    request = as_tensors(embedding.encoder.encode_requests(contexts))
    programs = (query_tower(embedding.model, rows_of(request, torch.arange(2))), *item_programs)
    model = destination.model(name)
    manifest = Manifest(
        name=model.model,
        version=model.version,
        stage=Stage.RETRIEVAL,
        engine=engine,
        sizes=sizes,
        params=params or {},
        programs={program.name: program.spec for program in programs},
        metrics={} if np.isnan(embedding.recall) else {f"recall_{RECALL_K}": embedding.recall},
        training_range=snapshot.training_range,
        settings=destination.settings,
        full_version=destination.full_version,
    )

    def fill(folder: Path) -> None:
        for program in programs:
            program.save(folder)
        (folder / FEATURES_FILE).write_bytes(embedding.spec.to_bytes())
        if embedding.tokenizer is not None:
            embedding.tokenizer.save(folder / TOKENIZER_FILE)
        pq.write_table(snapshot.items if items is None else items, folder / ITEMS_FILE)
        write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers))
        add(folder)

    write_bundle(destination.root, manifest, fill)
