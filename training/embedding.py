"""The embedding channel from data to bundle: a two-tower model with the index of its item vectors.

Legend: Q = requests, N = items, D = width of a vector, K = items of a golden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch

from shards.ann_index import AnnIndex
from shards.bundle import write_bundle
from shards.candidates import SCORE, Candidates
from shards.feature_encoder import RequestEncoder
from shards.features import FEATURES_FILE, FeatureSpec
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.manifest import Manifest
from shards.release import Stage
from shards.search_context import SearchContext
from shards.tokenizer import TOKENIZER_FILE, Tokenizer
from shards.two_tower import INDEX_FILE
from training.channels import GOLDEN_K, Destination
from training.checkpoints import Checkpoints
from training.features import FittingData, fit_spec, model_inputs
from training.item_index import untuned_index
from training.models.two_tower import TwoTower
from training.programs import query_tower
from training.recipe import Recipe
from training.retrieval import RetrievalSet, Towers, recall_at, train_two_tower
from training.sequences import new_model, train_sequences, windows_of
from training.snapshot import Requests, Snapshot
from training.tensors import Tensors, as_tensors, rows_of
from training.trainer import FitConfig, Observer, Seeded, ignore

RECALL_K = 100
"""Early stopping looks at recall among this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A trained model of two towers and what encodes its features."""

    model: Towers
    spec: FeatureSpec
    tokenizer: Tokenizer | None
    encoder: RequestEncoder
    item: Tensors
    epochs: int
    recall: float
    """Recall@100 on the requests that training did not see; NaN where there were none."""


def train_embedding(
    recipe: Recipe,
    snapshot: Snapshot,
    tokenizer: Tokenizer | None,
    requests: Requests,
    *,
    seeded: Seeded,
    held_out: Requests | None = None,
    epochs: int | None = None,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> Embedding:
    """Train on `requests`, all of them from before the snapshot's moment, or on the snapshot's events.

    Stops early on the recall over `held_out`; without those it runs for `epochs`.
    """
    generator = seeded.apply()
    items = ForwardIndex(snapshot.items)
    columns = items.columns(snapshot.items.column_names)
    data = FittingData(contexts=requests.contexts, item_columns=columns)
    spec = fit_spec(recipe.features.two_tower, data)
    encoder = RequestEncoder(spec, tokenizer, items.rows, columns)
    item = as_tensors(encoder.encode_items(columns))
    checkpoint = (checkpoints or Checkpoints()).next("embedding", generator)
    model: Towers
    if recipe.sequences is not None:
        model = new_model(recipe.sequences.model, spec, item)
        fitted = train_sequences(
            model,
            replace(recipe.sequences, fit=_lasting(recipe.sequences.fit, epochs)),
            windows_of(snapshot.events, snapshot.items, model.max_len),
            len(items),
            generator,
            evaluate=_recall(model, encoder, items, item, held_out) if held_out else None,
            observe=observe,
            checkpoint=checkpoint,
        )
    else:
        model = TwoTower(recipe.two_tower.model, model_inputs(spec, tokenizer, len(items)))
        fitted = train_two_tower(
            model,
            replace(recipe.two_tower, fit=_lasting(recipe.two_tower.fit, epochs)),
            _examples(encoder, items, requests),
            item,
            generator,
            evaluate=_recall(model, encoder, items, item, held_out) if held_out else None,
            observe=observe,
            checkpoint=checkpoint,
        )
    return Embedding(
        model=model,
        spec=spec,
        tokenizer=tokenizer,
        encoder=encoder,
        item=item,
        epochs=fitted.best_epoch,
        recall=fitted.best_metric,
    )


def _lasting(fit: FitConfig, epochs: int | None) -> FitConfig:
    return fit if epochs is None else replace(fit, epochs=epochs)


def _examples(encoder: RequestEncoder, items: ForwardIndex, requests: Requests) -> RetrievalSet:
    users = {context.user.user_id for context in requests.contexts if context.user.user_id}
    numbers = {user: number for number, user in enumerate(sorted(users))}
    return RetrievalSet(
        request=as_tensors(encoder.encode_requests(requests.contexts)),
        row_Q=torch.from_numpy(items.rows_of(requests.item_ids)),
        owner_Q=torch.tensor([numbers.get(context.user.user_id, -1) for context in requests.contexts]),
    )


def _recall(
    model: Towers, encoder: RequestEncoder, items: ForwardIndex, item: Tensors, held_out: Requests
) -> Callable[[], float]:
    examples = _examples(encoder, items, held_out)
    return lambda: recall_at(model, examples, item, RECALL_K)


def write_embedding(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
) -> None:
    """Write the bundle; its goldens are the answers to `contexts` from the eager model's vectors."""
    model = destination.model(name)
    with torch.inference_mode():
        vector_ND = embedding.model.encode_item(embedding.item).numpy()
    request = as_tensors(embedding.encoder.encode_requests(contexts))
    index = untuned_index(vector_ND)
    answers = _answers(embedding, index, request, snapshot.items.column("item_id").to_pylist())
    program = query_tower(embedding.model, rows_of(request, torch.arange(2)))
    manifest = Manifest(
        name=model.model,
        version=model.version,
        stage=Stage.RETRIEVAL,
        engine="two_tower",
        sizes={"items": len(vector_ND), "embedding": vector_ND.shape[1]},
        programs={program.name: program.spec},
        metrics={} if np.isnan(embedding.recall) else {f"recall_{RECALL_K}": embedding.recall},
        training_range=snapshot.training_range,
    )

    def fill(folder: Path) -> None:
        program.save(folder)
        (folder / FEATURES_FILE).write_bytes(embedding.spec.to_bytes())
        if embedding.tokenizer is not None:
            embedding.tokenizer.save(folder / TOKENIZER_FILE)
        pq.write_table(snapshot.items, folder / ITEMS_FILE)
        faiss.write_index(index, str(folder / INDEX_FILE))
        write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers))

    write_bundle(destination.root, manifest, fill)


def _answers(embedding: Embedding, index: Any, request: Tensors, item_ids: Sequence[str]) -> list[Candidates]:
    """Return what the index finds nearest to the eager model's vectors, best first."""
    with torch.inference_mode():
        query_QD = embedding.model.encode_query(request).numpy()
    ann = AnnIndex(index)
    found = [ann.search(vector_D[np.newaxis], GOLDEN_K) for vector_D in query_QD]
    return [
        Candidates(item_ids=tuple(item_ids[row] for row in rows.tolist()), columns={SCORE: scores})
        for scores, rows in found
    ]
