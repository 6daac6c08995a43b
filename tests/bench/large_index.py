"""A two-tower bundle of any size for benchmarks: the trained engine's own towers, without the training.

Towers read texts alone. A vector is mostly the mean of its text's word vectors, as the perceptron's random
part is made small; a word's vector is the mean of the centres of its topics, and noise of its own. So texts
of one topic lie close to each other, as training has them lie.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import Category, Tokens
from shards.features import FeatureSpec
from shards.release import ModelVersion
from shards.tokenizer import Tokenizer
from tests.bench.large_shop import LargeShop
from training.channels import Destination
from training.embedding import Embedding
from training.embedding_bundle import write_embedding
from training.features import TOKEN_TABLE, model_inputs
from training.models.fields import table_weight
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.tensors import Tensors, as_tensors

MODEL = ModelVersion("bench-embedding", "1")

_SPEC = FeatureSpec(
    features=(
        Tokens(name="query_tokens", source="query", max_len=8),
        Category(name="country", source="user.country", vocabulary=("France", "Germany")),
        Tokens(name="title_tokens", source="item.title", max_len=20),
    )
)
_GOLDENS = 8
_ITEMS_AT_ONCE = 100_000
_VOCABULARY = 30_000
"""Room for every word as one token."""
_PERCEPTRON_SHARE, _WORD_NOISE, _PIECE_SHARE = 0.05, 0.3, 0.3


def write_large_index(root: Path, shop: LargeShop) -> None:
    """Write the bundle `MODEL` of the shop below `root`, with the index that training gives it."""
    tokenizer = shop.tokenizer(_VOCABULARY)
    snapshot = replace(shop.snapshot(), items=shop.items.select(["item_id", "title"]))
    embedding = _embedding(shop, tokenizer)
    contexts = [shop.context(number) for number in range(_GOLDENS)]
    destination = Destination(root=root, prefix="bench", version=MODEL.version)
    write_embedding("embedding", embedding, snapshot, contexts, destination)


def _embedding(shop: LargeShop, tokenizer: Tokenizer) -> Embedding:
    torch.manual_seed(shop.seed)
    rows = {item_id: row for row, item_id in enumerate(shop.item_ids)}
    encoder = RequestEncoder(_SPEC, tokenizer, rows)
    model = TwoTower(TwoTowerConfig(history="none"), model_inputs(_SPEC, tokenizer, shop.size)).eval()
    with torch.no_grad():
        for tower in (model.query_tower, model.item_tower):
            for parameter in tower.perceptron[-1].parameters():
                parameter.mul_(_PERCEPTRON_SHARE)
        tokens = table_weight(model.tables, TOKEN_TABLE)
        tokens.mul_(_PIECE_SHARE)
        for token, vector_D in _word_vectors(shop, tokenizer, tokens.shape[1]).items():
            tokens[token] = torch.from_numpy(vector_D)
    return Embedding(
        model=model,
        spec=_SPEC,
        tokenizer=tokenizer,
        encoder=encoder,
        item=_item_features(shop, encoder),
        epochs=0,
        recall=float("nan"),
    )


def _word_vectors(shop: LargeShop, tokenizer: Tokenizer, width: int) -> dict[int, NDArray[np.float32]]:
    """Return the vector of each word that is one token, by its id."""
    rng = np.random.default_rng(shop.seed)
    topics = shop.topics
    centre_TD = _unit(rng.normal(size=(len(topics), width)))
    vectors = {}
    for word in np.unique(topics.astype(str)).tolist():
        first, second = tokenizer.encode(word, 2).tolist()
        if not second:
            of_D = centre_TD[(topics == word).any(axis=1)].mean(axis=0)
            vectors[first] = (of_D + _WORD_NOISE * _unit(rng.normal(size=width))).astype(np.float32)
    return vectors


def _unit(vector_XD: NDArray[np.float64]) -> NDArray[np.float64]:
    unit_XD: NDArray[np.float64] = vector_XD / np.linalg.norm(vector_XD, axis=-1, keepdims=True)
    return unit_XD


def _item_features(shop: LargeShop, encoder: RequestEncoder) -> Tensors:
    """Return the features of all items [N, …], a part at a time: the tokeniser's own objects are large."""
    parts = [
        as_tensors(encoder.encode_items({"title": shop.titles[start : start + _ITEMS_AT_ONCE]}))
        for start in range(0, shop.size, _ITEMS_AT_ONCE)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
