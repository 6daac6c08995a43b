"""Etsy's unified embedding: its blocks, and the recipe from real purchases to answers of a real shard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.bundle import open_bundle
from shards.servable import open_servable
from shards.two_tower import TwoTower as TwoTowerEngine
from tests.training.model_batches import (
    ITEM,
    ITEMS,
    assert_every_parameter_learns,
    item_batch,
    model_inputs,
    request_batch,
)
from tests.training.retail_slice import first_items
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.evaluation.judgements import judged_queries
from training.losses import softmax_loss
from training.models.fields import Field
from training.models.text_transformer import TextTransformer
from training.models.transformer_block import TransformerBlock, TransformerPool
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.pipeline import train
from training.programs import item_tower, query_tower
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run
from training.trainer import FitConfig

NEAR = Field(name="near", kind="bag", table="items")


def items() -> dict[str, Tensor]:
    near_NL = torch.randint(0, ITEMS + 1, (ITEMS, 3), generator=torch.Generator().manual_seed(3))
    near_NL[0] = 0
    return {**item_batch(), "near": near_NL}


def unified(**changes: object) -> TwoTower:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "width": 16,
        "hidden": 24,
        "dropout": 0.0,
        "history": "transformer",
        "history_text": "title_tokens",
        "title": "title_tokens",
        "neighbours": ("near",),
    }
    inputs = replace(model_inputs(), item=(*ITEM, NEAR))
    return TwoTower(TwoTowerConfig(**settings | changes), inputs, items())  # type: ignore[arg-type]


def loss_of(model: TwoTower, positive_B: Tensor) -> Tensor:
    logit_BN = model(request_batch(len(positive_B)), items())
    masked_BN = torch.nn.functional.one_hot(positive_B, ITEMS).bool()
    return softmax_loss(logit_BN.gather(1, positive_B.unsqueeze(1)).squeeze(1), logit_BN, masked_BN)


@pytest.mark.parametrize("layers", [1, 2])
def test_every_parameter_learns_and_one_batch_is_overfitted(layers: int) -> None:
    model = unified(layers=layers)
    positive_B = torch.tensor([3, 1, 4, 15, 9, 2])
    loss_of(model, positive_B).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model, positive_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss_of(model, positive_B).item() < 0.05


def test_programs_give_what_the_towers_give(tmp_path: Path) -> None:
    model = unified(neighbour_dropout=0.5, dropout=0.2).eval()
    for program, encode, inputs in (
        (query_tower(model, request_batch(3)), model.encode_query, request_batch(7)),
        (item_tower(model, items()), model.encode_item, items()),
    ):
        program.save(tmp_path)
        reloaded = torch.export.load(tmp_path / program.spec.file).module()
        torch.testing.assert_close(reloaded(**inputs), encode(inputs))


def test_a_pool_reads_what_is_present_and_nothing_else() -> None:
    torch.manual_seed(0)
    pool = TransformerPool(8, 2, layers=2, dropout=0.0)
    asking_BD, place_BSD = torch.randn(2, 8), torch.randn(2, 4, 8)
    present_BS = torch.tensor([[True, True, False, False], [False] * 4])
    other_BSD = torch.where(present_BS.unsqueeze(-1), place_BSD, 7.0)
    read_BD = pool(asking_BD, place_BSD, present_BS)
    torch.testing.assert_close(pool(asking_BD, other_BSD, present_BS), read_BD)
    assert not torch.allclose(pool(asking_BD, place_BSD.flip(0), present_BS)[0], read_BD[0])
    assert not torch.allclose(pool(asking_BD.flip(0), place_BSD, present_BS)[1], read_BD[1])


def test_the_first_places_alone_are_those_of_all() -> None:
    torch.manual_seed(0)
    block, x_BSD = TransformerBlock(8, 2, dropout=0.0), torch.randn(3, 5, 8)
    hidden = torch.zeros(3, 1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(block(x_BSD, hidden, first=2), block(x_BSD, hidden)[:, :2])


def test_titles_are_read_in_order_and_no_further_than_they_go() -> None:
    torch.manual_seed(0)
    encoder = TextTransformer(8, 2, layers=1, max_len=3, dropout=0.0)
    weight_VD = torch.randn(9, 8)
    token_NL = torch.tensor([[1, 2, 0, 0], [2, 1, 0, 0], [1, 2, 3, 0], [1, 2, 3, 8], [0, 0, 0, 0]])
    one, turned, longer, cut, empty = encoder(token_NL, weight_VD)
    assert not torch.allclose(one, turned)
    assert not torch.allclose(one, longer)
    torch.testing.assert_close(longer, cut)
    assert not empty.any()


def test_events_are_known_by_what_the_item_is_called() -> None:
    model = unified().eval()
    assert model.history is not None
    request = request_batch(2)
    event_BLD, _ = model.history(request)
    weight_VD, token_NT = model.tables["tokens_table"].weight, items()["title_tokens"]
    assert isinstance(weight_VD, Tensor)
    row_BL = request["history_items"]
    ages = model.history.ages(request["history_ages"])
    id_BLD = model.tables["items_table"](row_BL)
    text_BLD = weight_VD[token_NT[row_BL - 1]].mean(dim=2) * (row_BL > 0).unsqueeze(-1)
    torch.testing.assert_close(event_BLD, id_BLD + ages + text_BLD)


def test_items_are_at_times_shown_without_their_neighbours_in_training() -> None:
    model = unified(neighbour_dropout=0.5)
    assert model.neighbours is not None
    out_ND = model.neighbours(items())
    known_N = out_ND.abs().sum(dim=1) > 0
    assert 0 < known_N.sum() < ITEMS
    all_ND = model.neighbours.eval()(items())
    torch.testing.assert_close(out_ND[known_N], all_ND[known_N])
    assert (all_ND.abs().sum(dim=1) > 0).tolist() == [False, *[True] * (ITEMS - 1)]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"title": "sales"}, "'sales' is no feature of the item that holds ids"),
        ({"neighbours": ("near", "far")}, "'far' is no feature"),
        ({"history_text": "sales"}, "'sales' is no feature"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"transformer_heads": 3}, "multiple of transformer_heads"),
        ({"neighbour_dropout": 1.0}, "neighbour_dropout"),
        ({"title_places": 0}, "title_places"),
    ],
)
def test_towers_that_cannot_be_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        unified(**changes)


def small(recipe: Recipe) -> Recipe:
    """Return the recipe for 300 items, with vectors of 16 numbers."""
    training, (channel,) = recipe.two_tower, recipe.channels
    return replace(
        recipe,
        channels=(replace(channel, index="IVF4,PQ11x4fs,RFlat"),),
        features=replace(recipe.features, vocab_size=600),
        two_tower=replace(
            training,
            model=replace(training.model, width=16, hidden=24),
            fit=FitConfig(epochs=2, batch_size=256, learning_rate=1e-2),
            negatives=64,
        ),
        two_tower_queries=2_000,
        ranking_queries=400,
    )


@pytest.mark.data
def test_real_purchases_become_answers_of_a_shard(tmp_path: Path) -> None:
    dataset, recipe = first_items(300, 300), small(RECIPES["etsy"])
    destination = Destination(root=tmp_path / "models", prefix="etsy", version="1")
    trained = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination)
    model = trained.release.channels[0].model
    engine = open_servable(open_bundle(destination.root / model.model / model.version), "cpu")
    assert isinstance(engine, TwoTowerEngine)
    assert known_until_ms(dataset) == trained.release.as_of_ms
    contexts = [each.context for each in judged_queries(dataset, "test", limit=5, history_limit=50)]
    features = engine.encoder.encode_requests(contexts)
    assert (features["country"] > 0).any(), "a user's country is known to the vocabulary of both towers"
    lists = engine.items.attributes(np.arange(300).tolist(), ["neighbour_queries", "neighbour_items"])
    assert all(sum(map(bool, column)) > 250 for column in lists.values())
    pages = asked(destination.root, tmp_path / "state", model, contexts, k=20)
    assert pages == [engine.retrieve(context, 20, (), (), 0).item_ids for context in contexts]
    assert all(len(page) == 20 for page in pages)
