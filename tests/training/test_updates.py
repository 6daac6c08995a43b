"""Models that go on learning: what changes, what stays, and what a day's newcomers gain."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deploy.folders import cache_dir
from shards.bundle import Bundle, open_bundle
from shards.errors import InvalidInput
from shards.forward_index import ForwardIndex
from tests.bench.quality_updates import figures_of, lived, trained
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.channels import Destination
from training.datasets import movielens
from training.datasets.splits import known_until_ms, split_of
from training.embedding import Embedding, examples_of, train_embedding
from training.embedding_bundle import write_embedding
from training.features import ITEM_TABLE
from training.models.fields import table_weight
from training.models.two_tower import TwoTower
from training.parameters import restored
from training.recipes import RECIPES
from training.run import Run
from training.snapshot import Requests, Snapshot, snapshot
from training.trainer import FitConfig, Seeded
from training.updates import go_on

DATASET = shop_dataset()
NOW_MS = known_until_ms(DATASET)
RUN = Run(recipe=RECIPE, dataset=DATASET, seed=0, gate=lambda *_: True)


@pytest.fixture(scope="module")
def known() -> Snapshot:
    return snapshot(DATASET, NOW_MS)


@pytest.fixture(scope="module")
def later() -> Requests:
    return RUN.requests_between(NOW_MS, 1 << 62, newest=60)


@pytest.fixture(scope="module")
def released(known: Snapshot) -> Embedding:
    requests = RUN.requests_until(NOW_MS)[-100:]
    return train_embedding(RECIPE, known, RUN.tokenizer(known), requests, seeded=Seeded(seed=0), epochs=1)


@pytest.fixture
def embedding(released: Embedding) -> Embedding:
    return replace(released, model=copy.deepcopy(released.model))


def changed(embedding: Embedding, known: Snapshot, later: Requests, *, tables_only: bool) -> set[str]:
    """Return the parameters that an update changes."""
    model = embedding.model
    assert isinstance(model, TwoTower)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    go_on(
        model,
        RECIPE.two_tower,
        RECIPE.updates,
        examples_of(embedding.encoder, ForwardIndex(known.items), later),
        embedding.item,
        torch.Generator().manual_seed(0),
        tables_only=tables_only,
    )
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def test_only_tables_learn_between_full_updates(
    embedding: Embedding, known: Snapshot, later: Requests
) -> None:
    names = changed(embedding, known, later, tables_only=True)
    assert names
    assert all(name.startswith("tables.") for name in names)
    everything = {name for name, _ in embedding.model.named_parameters()}
    assert {name for name, value in embedding.model.named_parameters() if value.requires_grad} == everything
    assert changed(embedding, known, later, tables_only=False) == everything


def test_what_was_not_to_be_learned_at_first_is_not_learned_later(
    embedding: Embedding, known: Snapshot, later: Requests
) -> None:
    model = embedding.model
    assert isinstance(model, TwoTower)
    model.log_temperature.requires_grad_(False)
    for tables_only in (True, False):
        assert "log_temperature" not in changed(embedding, known, later, tables_only=tables_only)
    assert not model.log_temperature.requires_grad


@pytest.fixture(scope="module")
def bundle(
    released: Embedding, known: Snapshot, later: Requests, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    root = tmp_path_factory.mktemp("models")
    destination = Destination(root=root, prefix="shop", version="1")
    write_embedding("embedding", released, known, later.contexts[:2], destination)
    return open_bundle(root / "shop-embedding" / "1")


def test_a_bundle_gives_its_parameters_back_for_items_that_came_and_went(
    bundle: Bundle, embedding: Embedding, known: Snapshot
) -> None:
    old_ids = known.items.column("item_id").to_pylist()
    new_ids = ["new", *reversed(old_ids[3:])]
    model = restored(RECIPE.two_tower.model, bundle, new_ids)
    rows = torch.tensor([old_ids.index(item_id) + 1 for item_id in new_ids[1:]])
    before, after = item_table(embedding.model), item_table(model)
    assert len(after) == len(new_ids) + 1
    torch.testing.assert_close(after[2:], before[rows], rtol=0, atol=0)
    assert not after[0].any(), "the row of no item"
    assert after[1].any(), "the row of a new one"
    with torch.inference_mode():
        torch.testing.assert_close(
            restored(RECIPE.two_tower.model, bundle, old_ids).encode_item(embedding.item),
            embedding.model.encode_item(embedding.item),
        )


def test_parameters_of_another_model_are_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="trained with other settings than the recipe"):
        restored(replace(RECIPE.two_tower.model, width=8), bundle, ["a"])


def item_table(model: object) -> Tensor:
    assert isinstance(model, TwoTower)
    return table_weight(model.tables, ITEM_TABLE).detach()


def test_newcomers_are_known_within_the_hour_where_tables_learn_every_ten_minutes() -> None:
    """Three days of MovieLens-100K after a short training; users of these days were never seen."""
    dataset = movielens.load(cache_dir())
    recipe = RECIPES["movielens_updates"]
    short = replace(recipe.two_tower, fit=FitConfig(epochs=2, batch_size=256, learning_rate=3e-3))
    recipe = replace(recipe, two_tower=short)
    split = split_of(dataset.queries)
    embedding, period = trained(recipe, dataset, split.test_from_ms, 1 << 62, 0, quick=True)
    figures = figures_of(period, lived(recipe, embedding, period, 0))
    assert figures["incremental, MRR, last hours, new users"] > figures["daily, MRR, last hours, new users"]
