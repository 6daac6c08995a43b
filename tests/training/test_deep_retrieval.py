"""Deep Retrieval over real data: near brute force by a fraction of the scoring, served by a shard."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shards.bundle import open_bundle
from shards.deep_retrieval import DeepRetrieval
from shards.forward_index import ForwardIndex
from shards.search_context import FilterClause
from shards.servable import open_servable
from shards.tokenizer import Tokenizer
from tests.training.shard_answers import asked
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.datasets import online_retail
from training.datasets.splits import known_until_ms
from training.embedding import Embedding, examples_of, train_embedding
from training.path_bundle import write_paths
from training.paths import path_recall
from training.recipes import RECIPES
from training.retrieval import encoded, recall_at
from training.snapshot import Requests, Snapshot, requests_between, snapshot
from training.trainer import Seeded

TRAINED, TESTED = 6_000, 300


def test_paths_go_with_the_channel_that_follows_them() -> None:
    recipe = RECIPES["deep_retrieval"]
    with pytest.raises(ValueError, match="paths are for a deep_retrieval channel"):
        replace(recipe, paths=None)
    with pytest.raises(ValueError, match="paths are for a deep_retrieval channel"):
        replace(recipe, channels=(ChannelRecipe(name="embedding", source="two_tower"),))


def trained() -> tuple[Embedding, Snapshot, Requests]:
    """Return a model of the newest real queries before the test, and test queries."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    recipe, dataset = RECIPES["deep_retrieval"], online_retail.load(Path(folder))
    test_ms = known_until_ms(dataset)
    known = snapshot(dataset, test_ms)
    taught = requests_between(dataset, 0, test_ms, newest=TRAINED, history_limit=20)
    tokenizer = Tokenizer.train(known.items.column("title").to_pylist(), vocab_size=1_000)
    fit = replace(recipe.two_tower.fit, batch_size=256)
    recipe = replace(recipe, two_tower=replace(recipe.two_tower, fit=fit))
    embedding = train_embedding(recipe, known, tokenizer, taught, seeded=Seeded(seed=0), epochs=4)
    tested = requests_between(dataset, test_ms, 1 << 62, newest=TESTED, history_limit=20)
    return embedding, known, tested


@pytest.mark.data
def test_real_searches_are_near_brute_force_by_a_fraction_of_the_scoring(tmp_path: Path) -> None:
    embedding, known, tested = trained()
    assert embedding.paths is not None
    examples = examples_of(embedding.encoder, ForwardIndex(known.items), tested)
    with torch.inference_mode():
        exact = recall_at(embedding.model, examples, embedding.item, 10)
        recall, scored = path_recall(
            embedding.paths.index(),
            encoded(embedding.model, examples),
            examples.row_Q,
            embedding.model.encode_item(embedding.item),
            beam=embedding.paths.training.beam,
            k=10,
        )
    assert exact > 0.4
    assert recall > 0.8 * exact
    assert scored < 0.3
    destination = Destination(root=tmp_path / "models", prefix="shop", version="1")
    write_paths("paths", embedding, known, tested.contexts[:4], destination)
    model = destination.model("paths")
    engine = open_servable(open_bundle(destination.root / model.model / model.version), "cpu")
    assert isinstance(engine, DeepRetrieval)
    answers = asked(destination.root, tmp_path / "state", model, tested.contexts, k=10)
    found = sum(item_id in page for item_id, page in zip(tested.item_ids, answers, strict=True))
    assert found / len(answers) == pytest.approx(recall, abs=0.02), "the shard finds what training measured"
    few = (FilterClause(attribute="item_id", any_of=answers[0][:3]),)
    assert set(engine.retrieve(tested.contexts[1], 3, few, (), 0).item_ids) == set(answers[0][:3]), (
        "a search widens until it has found what the filter allows"
    )
