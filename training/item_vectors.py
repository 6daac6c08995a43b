"""Channels "item_vectors" from data to bundle: an item tower trained on pairs, and an index of its vectors.

Legend: N = items, D = width of a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch

from shards.candidates import Floats
from shards.feature_encoder import RequestEncoder
from shards.features import FeatureSpec
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.item_vectors import INDEX_FILE, ItemVectorsParams
from shards.json_codec import to_json
from shards.manifest import Manifest
from shards.release import Stage
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from training.answered_bundle import write_answered
from training.channel_recipe import ChannelRecipe
from training.channels import GOLDEN_K, Destination
from training.checkpoints import Checkpoints
from training.features import FittingData, fit_spec, model_inputs
from training.item_index import build, untuned_index
from training.item_pairs import item_pairs, train_item_pairs
from training.models.item_tower import ItemTower, as_codes
from training.recipe import Recipe
from training.snapshot import Snapshot
from training.tensors import Tensors, as_tensors
from training.trainer import Observer, Seeded, ignore

INT8 = "SQ8_direct_signed"
"""FAISS's kind of index that keeps whole numbers from -128 to 127 as they are, a byte each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedVectors:
    """The vectors of a catalogue [N, D], and whether they are whole numbers for int8."""

    vector_ND: Floats
    int8: bool


def train_item_vectors(
    recipe: Recipe,
    snapshot: Snapshot,
    tokenizer: Tokenizer | None,
    *,
    seeded: Seeded,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> TrainedVectors:
    """Train the recipe's item tower on the snapshot's events and return the vectors of all items."""
    training = recipe.item_pairs
    assert training is not None, "a recipe with item_vectors has item_pairs"
    generator = seeded.apply()
    items = ForwardIndex(snapshot.items)
    model, item = new_tower(recipe, items, tokenizer)
    train_item_pairs(
        model,
        training,
        item_pairs(snapshot.events, items, training.within_hours),
        item,
        generator,
        observe=observe,
        checkpoint=(checkpoints or Checkpoints()).next("item_pairs", generator),
    )
    with torch.inference_mode():
        vector_ND = model(item)
    int8 = training.model.output == "tanh"
    return TrainedVectors(vector_ND=(as_codes(vector_ND) if int8 else vector_ND).numpy(), int8=int8)


def new_tower(recipe: Recipe, items: ForwardIndex, tokenizer: Tokenizer | None) -> tuple[ItemTower, Tensors]:
    """Return the recipe's item tower, still to be trained, and the features of the whole catalogue [N, …]."""
    training = recipe.item_pairs
    assert training is not None, "a recipe with item_vectors has item_pairs"
    columns = items.columns(items.names)
    features = FeatureSpec(features=recipe.features.two_tower).on("item")
    spec = fit_spec(features, FittingData(contexts=(), item_columns=columns))
    item = as_tensors(RequestEncoder(spec, tokenizer, items.rows, columns).encode_items(columns))
    return ItemTower(training.model, model_inputs(spec, tokenizer, len(items))), item


def write_item_vectors(
    channel: ChannelRecipe,
    vectors: TrainedVectors,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    destination: Destination,
) -> None:
    """Write the bundle of a channel that asks with the user's items; its goldens answer `contexts`."""
    model = destination.model(channel.name)
    vector_ND = np.ascontiguousarray(vectors.vector_ND)
    index = build(vector_ND, INT8) if vectors.int8 else untuned_index(vector_ND)
    params = ItemVectorsParams(actions=channel.actions, newest=channel.newest, interests=channel.interests)
    manifest = Manifest(
        name=model.model,
        version=model.version,
        stage=Stage.RETRIEVAL,
        engine="item_vectors",
        sizes={"items": len(vector_ND), "embedding": vector_ND.shape[1]},
        params=to_json(params),
        settings=destination.settings,
        training_range=snapshot.training_range,
    )

    def fill(folder: Path) -> None:
        pq.write_table(snapshot.items, folder / ITEMS_FILE)
        faiss.write_index(index, str(folder / INDEX_FILE))

    write_answered(destination.root, manifest, fill, contexts, [GOLDEN_K] * len(contexts))
