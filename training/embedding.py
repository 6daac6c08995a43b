"""The embedding channel from data to bundle: a two-tower model with the index of its item vectors.

Legend: Q = requests, N = items, D = width of a vector, K = items of a golden.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shards.ann_cascade import SECOND_FILE, AnnCascade
from shards.ann_index import AnnIndex
from shards.bundle import write_bundle
from shards.candidates import Candidates, Floats
from shards.catalogue import CATALOGUE_FILE
from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import ITEM_ID_COLUMN
from shards.features import FEATURES_FILE, FeatureSpec
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.json_codec import to_json
from shards.manifest import Manifest
from shards.program_inputs import Arrays
from shards.query_vectors import QueryVectors
from shards.release import ModelVersion, Stage
from shards.search_context import SearchContext
from shards.tokenizer import TOKENIZER_FILE, Tokenizer
from shards.two_tower import INDEX_FILE, TwoTowerParams
from shards.two_tower import TwoTower as TwoTowerEngine
from training.channels import GOLDEN_K, Destination
from training.checkpoints import Checkpoints
from training.ensembles import EnsembleTraining
from training.features import FittingData, fit_spec, model_inputs
from training.hard_negatives import HardNegatives, by_actions
from training.item_index import untuned_index
from training.joined_requests import history_log, join_requests
from training.models.ensemble import Ensemble
from training.models.hydrated import Hydrated
from training.models.two_tower import TwoTower
from training.paths import PathLearner, path_recall
from training.prod2vec import train_prod2vec
from training.programs import Program, item_tower, query_tower
from training.recipe import Recipe
from training.retrieval import RetrievalSet, Towers, TwoTowerTraining, encoded, recall_at, train_two_tower
from training.sequences import new_model, train_sequences, windows_of
from training.snapshot import Requests, Snapshot
from training.tensors import RowSource, Tensors, as_tensors, rows_of
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
    paths: PathLearner | None = None
    """Paths that were learned with the model."""


def train_embedding(
    recipe: Recipe,
    snapshot: Snapshot,
    tokenizer: Tokenizer | None,
    requests: Requests,
    *,
    seeded: Seeded,
    held_out: Requests | None = None,
    epochs: int | None = None,
    rejected_QR: Tensor | None = None,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> Embedding:
    """Train on `requests`, all of them from before the snapshot's moment, or on the snapshot's events.

    Stops early on the recall over `held_out`; without those it runs for `epochs`. `rejected_QR` are rows of
    candidates that rankers had no use for, of the newest requests, for hard negatives from there.
    """
    checkpoints = checkpoints or Checkpoints()
    if recipe.ensemble is not None:

        def train(training: TwoTowerTraining) -> Embedding:
            return train_embedding(
                replace(recipe, ensemble=None, two_tower=training),
                snapshot,
                tokenizer,
                requests,
                seeded=seeded,
                held_out=held_out,
                epochs=epochs,
                rejected_QR=rejected_QR,
                observe=observe,
                checkpoints=checkpoints,
            )

        return _joined(recipe.ensemble, train, snapshot, held_out)
    generator = seeded.apply()
    items = ForwardIndex(snapshot.items)
    columns = items.columns(snapshot.items.column_names)
    data = FittingData(contexts=requests.contexts, item_columns=columns)
    spec = fit_spec(recipe.features.two_tower, data)
    encoder = RequestEncoder(spec, tokenizer, items.rows, columns)
    item = as_tensors(encoder.encode_items(columns))
    if recipe.prod2vec is not None:
        vectors = train_prod2vec(
            recipe.prod2vec,
            spec,
            snapshot.items,
            snapshot.events,
            generator,
            observe=observe,
            checkpoints=checkpoints,
        )
        recall = _recall(vectors, encoder, items, item, held_out)() if held_out else math.nan
        epochs = recipe.prod2vec.fit.epochs
        return Embedding(
            model=vectors, spec=spec, tokenizer=None, encoder=encoder, item=item, epochs=epochs, recall=recall
        )
    checkpoint = checkpoints.next("embedding", generator)
    model: Towers
    paths = None
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
        if recipe.paths is not None:
            width = recipe.two_tower.model.width
            paths = PathLearner(recipe.paths, width=width, items=len(items), generator=generator)
        fitted = train_two_tower(
            model,
            replace(recipe.two_tower, fit=_lasting(recipe.two_tower.fit, epochs)),
            replace(
                _joined_examples(encoder, spec, items, requests, snapshot),
                hard_QR=hard_rows(recipe.two_tower.hard, snapshot, requests, rejected_QR),
            ),
            item,
            generator,
            evaluate=_recall(model, encoder, items, item, held_out, paths) if held_out else None,
            observe=observe,
            checkpoint=checkpoint,
            paths=paths,
        )
    return Embedding(
        model=model,
        spec=spec,
        tokenizer=tokenizer,
        encoder=encoder,
        item=item,
        epochs=fitted.best_epoch,
        recall=fitted.best_metric,
        paths=paths,
    )


def hard_rows(
    config: HardNegatives, snapshot: Snapshot, requests: Requests, rejected_QR: Tensor | None
) -> Tensor | None:
    """Return the rows [Q, R] of hard negatives that are known before training; None where there are none."""
    if config.source == "actions":
        users = [context.user.user_id for context in requests.contexts]
        return by_actions(config, snapshot.events, snapshot.items, users)
    if config.source == "rejected" and rejected_QR is not None:
        newest_QR = rejected_QR[-len(requests) :]
        return F.pad(newest_QR, (0, 0, len(requests) - len(newest_QR), 0), value=-1)
    return None


def _lasting(fit: FitConfig, epochs: int | None) -> FitConfig:
    return fit if epochs is None else replace(fit, epochs=epochs)


def examples_of(encoder: RequestEncoder, items: ForwardIndex, requests: Requests) -> RetrievalSet:
    """Return requests as training and recall take them; those of one user have one owner."""
    return _examples(as_tensors(encoder.encode_requests(requests.contexts)), items, requests)


def _joined_examples(
    encoder: RequestEncoder, spec: FeatureSpec, items: ForwardIndex, requests: Requests, snapshot: Snapshot
) -> RetrievalSet:
    """Return the same with features that are joined when a batch needs them."""
    request = join_requests(encoder, spec, requests.contexts, history_log(snapshot.events, items))
    return _examples(request, items, requests)


def _examples(request: RowSource, items: ForwardIndex, requests: Requests) -> RetrievalSet:
    users = {context.user.user_id for context in requests.contexts if context.user.user_id}
    numbers = {user: number for number, user in enumerate(sorted(users))}
    return RetrievalSet(
        request=request,
        row_Q=torch.from_numpy(items.rows_of(requests.item_ids)),
        owner_Q=torch.tensor([numbers.get(context.user.user_id, -1) for context in requests.contexts]),
    )


def _recall(
    model: Towers,
    encoder: RequestEncoder,
    items: ForwardIndex,
    item: Tensors,
    held_out: Requests,
    paths: PathLearner | None = None,
) -> Callable[[], float]:
    """Return what measures recall on requests: over the whole catalogue, or over what lies on their paths."""
    examples = examples_of(encoder, items, held_out)
    if paths is None:
        return lambda: recall_at(model, examples, item, RECALL_K)
    return lambda: path_recall(
        paths.index(),
        encoded(model, examples),
        examples.row_Q,
        model.encode_item(item),
        beam=paths.training.beam,
        k=RECALL_K,
    )[0]


def write_embedding(
    name: str,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
    params: TwoTowerParams = TwoTowerParams(),  # noqa: B008 (frozen)
    *,
    active_within_days: float | None = None,
) -> None:
    """Write the bundle; its goldens are the answers to `contexts` from the eager model's vectors.

    Its index holds the items that were acted on within so many days, all of them where that is None.
    """
    items, row_N = active_items(snapshot.items, active_within_days)
    vector_ND = item_vectors(embedding)[row_N]
    index = untuned_index(np.ascontiguousarray(vector_ND[:, : _indexed(embedding, params)]))
    second_NE = np.ascontiguousarray(vector_ND[:, index.d :])
    ann = AnnIndex(index)
    engine = TwoTowerEngine(
        items=ForwardIndex(items),
        encoder=embedding.encoder,
        vectors=query_vectors(embedding),
        ann=AnnCascade(index=ann, second_NE=second_NE, first=params.first) if params.first else ann,
        radius=params.radius,
    )

    def add(folder: Path) -> None:
        faiss.write_index(index, str(folder / INDEX_FILE))
        if params.first:
            np.save(folder / SECOND_FILE, second_NE)
        if len(items) < len(snapshot.items):
            # Towers know items by their row among all of them.
            pq.write_table(snapshot.items.select([ITEM_ID_COLUMN]), folder / CATALOGUE_FILE)

    write_with_query_tower(
        destination.model(name),
        embedding,
        snapshot,
        contexts,
        [engine.retrieve(context, GOLDEN_K, (), (), 0) for context in contexts],
        destination.root,
        engine="two_tower",
        sizes={"items": len(vector_ND), "embedding": vector_ND.shape[1]},
        add=add,
        item_programs=() if params.first else _item_programs(embedding),
        settings=destination.settings,
        params=to_json(params),
        items=items,
    )


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


def _joined(
    ensemble: EnsembleTraining,
    train: Callable[[TwoTowerTraining], Embedding],
    snapshot: Snapshot,
    held_out: Requests | None,
) -> Embedding:
    """Train each member and join them.

    Early members stop by their own recall; late ones run as long as the early one that ran longest.
    """
    trained = [train(member.training) for member in ensemble.members]
    towers = [each.model for each in trained if isinstance(each.model, TwoTower)]
    weights = [member.weight for member in ensemble.members]
    joined = replace(
        trained[0],
        model=Ensemble(towers, weights, weighted=not ensemble.first).eval(),
        epochs=max(each.epochs for each in trained),
    )
    if held_out is None:
        return joined
    with torch.inference_mode():
        items = ForwardIndex(snapshot.items)
        recall = _recall(joined.model, joined.encoder, items, joined.item, held_out)()
    return replace(joined, recall=recall)


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
    model: ModelVersion,
    embedding: Embedding,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    answers: Sequence[Candidates],
    root: Path,
    *,
    engine: str,
    sizes: Mapping[str, int],
    add: Callable[[Path], None],
    params: Mapping[str, Any] | None = None,
    items: pa.Table | None = None,
    item_programs: Sequence[Program] = (),
    settings: tuple[str, ...] = (),
) -> None:
    """Write a bundle of the query tower with what it needs, the goldens, and what `add` puts beside them.

    It finds the snapshot's items, or others where they are given; `item_programs` embed more of them.
    """
    request = as_tensors(embedding.encoder.encode_requests(contexts))
    programs = (query_tower(embedding.model, rows_of(request, torch.arange(2))), *item_programs)
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
        settings=settings,
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

    write_bundle(root, manifest, fill)
