"""Item vectors from sessions: sessions, learning, the alignment of two shops, and answers of a shard."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from shards.bundle import open_bundle
from shards.feature_kinds import HistoryItems, ItemId
from shards.features import FeatureSpec
from shards.servable import open_servable
from shards.two_tower import TwoTower
from tests.training.model_batches import assert_every_parameter_learns
from tests.training.shard_answers import asked
from training.channels import Destination
from training.checkpoints import Checkpoints
from training.datasets import online_retail
from training.datasets.splits import split_of
from training.datasets.tables import Dataset
from training.datasets.two_shops import two_shops
from training.embedding import Embedding, train_embedding
from training.embedding_bundle import write_embedding
from training.evaluation.cross_shop import asking, cross_ndcg, crossings
from training.models.prod2vec import BagOfItems, Prod2Vec, SpaceMap
from training.prod2vec import Prod2VecTraining, sessions_of, train_prod2vec
from training.recipes import RECIPES
from training.snapshot import Snapshot, requests_between, snapshot
from training.space_alignment import anchors, content_map
from training.suggestions import write_suggestions
from training.trainer import FitConfig, Seeded

COLOURS = ("red", "blue", "green", "pink", "black", "white", "silver", "golden")
THINGS = {"a": ("mug", "bowl", "cup", "tray"), "b": ("lamp", "clock", "frame", "candle")}
SPEC = FeatureSpec(features=(HistoryItems(name="history", max_len=4), ItemId(name="row")))
FIT = FitConfig(epochs=30, batch_size=64, learning_rate=0.02)
TRAINING = Prod2VecTraining(width=16, context=3, negatives=16, fit=FIT, alignment_fit=FIT, shop="shop")


def items() -> pa.Table:
    """Return things of both shops in every colour."""
    rows = [(f"{shop}-{c}-{t}", f"{c} {t}", shop) for shop in THINGS for c in COLOURS for t in THINGS[shop]]
    return pa.table(dict(zip(("item_id", "title", "shop"), map(list, zip(*rows, strict=True)), strict=True)))


def events(*, crossing: int = 1) -> pa.Table:
    """Return sessions of one colour each: things of shop a, of shop b, and `crossing` of both."""
    kinds = (("a",), ("b",), *[("a", "b")] * crossing)
    rows = [
        (f"{c}-{n}-{kind}", f"{shop}-{c}-{t}")
        for n in range(10)
        for c in COLOURS
        for kind, shops in enumerate(kinds)
        for shop in shops
        for t in THINGS[shop]
    ]
    return pa.table({"session_id": [session for session, _ in rows], "item_id": [item for _, item in rows]})


def trained(**changes: object) -> Tensor:
    """Return the vectors of the items."""
    generator = Seeded(seed=0).apply()
    training = replace(TRAINING, **changes)  # type: ignore[arg-type]
    model = train_prod2vec(training, SPEC, items(), events(), generator, checkpoints=Checkpoints())
    return model.encode_item({"row": torch.arange(1, len(items()) + 1)})


def found_in_b(vector_ND: Tensor) -> float:
    """Return how often the four nearest items of shop b to one of shop a have its colour."""
    half = len(vector_ND) // 2
    near = (vector_ND[:half] @ vector_ND[half:].T).topk(4, dim=1).indices
    return float((near // 4 == torch.arange(half).unsqueeze(1) // 4).float().mean())


def test_a_session_holds_each_item_once_and_knows_which_one_it_is() -> None:
    table = pa.table({"session_id": ["x", None, "x", "y", "x"], "item_id": ["b", "a", "a", "gone", "b"]})
    found = sessions_of(table, pa.table({"item_id": ["a", "b"]}))
    assert (found.starts.tolist(), found.row_E.tolist()) == ([0, 2], [0, 1])
    assert found.kept(np.array([False, True])).row_E.tolist() == [1]
    with pytest.raises(ValueError, match="session_id"):
        sessions_of(pa.table({"item_id": ["a"]}), pa.table({"item_id": ["a"]}))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    bag = BagOfItems(5, 4)
    torch.nn.init.normal_(bag.target.weight)
    bag(torch.tensor([[1, 2, 0], [3, 4, 5]]), torch.arange(5)).square().sum().backward()
    assert_every_parameter_learns(bag)
    space = SpaceMap(torch.eye(4))
    space(torch.randn(3, 4), torch.randn(5, 4)).square().sum().backward()
    assert_every_parameter_learns(space)


def test_a_user_is_the_mean_of_what_they_met() -> None:
    model = Prod2Vec(torch.eye(3), history="history", item="row")
    query_BD = model.encode_query({"history": torch.tensor([[1, 3, 0], [0, 0, 0]])})
    torch.testing.assert_close(query_BD, torch.tensor([[0.5**0.5, 0.0, 0.5**0.5], [0.0, 0.0, 0.0]]))


def test_items_of_like_titles_are_anchors_and_turn_one_space_into_the_other() -> None:
    source_N = np.array([shop == "a" for shop in items().column("shop").to_pylist()])
    source_A, target_A = anchors(items(), source_N, ~source_N)
    assert len(source_A) == source_N.sum()
    assert (source_A // 4 == (target_A - 32) // 4).all(), "of one colour"
    generator = torch.Generator().manual_seed(0)
    colour_ND = torch.randn(8, 8, generator=generator).repeat_interleave(4, dim=0)
    turn_DD = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    vector_ND = torch.cat([colour_ND, colour_ND @ turn_DD])
    found_DD = content_map(vector_ND, items(), torch.from_numpy(source_N), torch.from_numpy(~source_N))
    torch.testing.assert_close(found_DD, turn_DD, atol=1e-4, rtol=1e-4)


def test_aligned_shops_find_each_others_items_and_unaligned_ones_do_not() -> None:
    unaligned, content, behaviour = (
        found_in_b(trained(alignment=name)) for name in ("none", "content", "behaviour")
    )
    assert unaligned < 0.3, "an eighth by chance"
    assert content > 0.45
    assert behaviour > max(content, 0.8)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="alignment must be one of"):
        replace(TRAINING, alignment="images")
    with pytest.raises(ValueError, match="aligns two shops; the column 'title' has 64 values"):
        trained(shop="title")


def real() -> Dataset:
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return two_shops(online_retail.load(Path(folder)), name="two_shops")


def trained_on(known: Snapshot, dataset: Dataset, alignment: str) -> Embedding:
    """Return small vectors of an alignment."""
    recipe = RECIPES["cross_shop"]
    assert recipe.prod2vec is not None
    fit = FitConfig(epochs=2, batch_size=2048, learning_rate=0.01)
    quick = replace(recipe.prod2vec, width=24, fit=fit, alignment_fit=fit, alignment=alignment)
    requests = requests_between(dataset, 0, known.now_ms, newest=4, history_limit=30)
    return train_embedding(replace(recipe, prod2vec=quick), known, None, requests, seeded=Seeded(seed=0))


def opened(destination: Destination, name: str) -> TwoTower:
    model = destination.model(name)
    engine = open_servable(open_bundle(destination.root / model.model / model.version), "cpu")
    assert isinstance(engine, TwoTower)
    return engine


@pytest.mark.data
def test_real_shops_that_are_aligned_beat_unaligned_ones_and_a_shard_answers(tmp_path: Path) -> None:
    dataset = real()
    test_ms = split_of(dataset.queries).test_from_ms
    known = snapshot(dataset, test_ms)
    known = replace(known, events=known.events.slice(len(known.events) - 100_000))
    users = crossings(dataset.items, dataset.events, test_ms, 1 << 53, source="a", target="b")[:400]
    searched = asking(users, dataset.queries)
    contexts = [user.context for user in users[:4]]
    destination = Destination(root=tmp_path / "models", prefix="shops", version="1")
    for alignment in ("none", "behaviour"):
        embedding = trained_on(known, dataset, alignment)
        write_embedding(alignment, embedding, known, contexts, destination)
        write_suggestions(f"queries-{alignment}", embedding, known, contexts, destination)
    unaligned, aligned = (opened(destination, name) for name in ("none", "behaviour"))
    assert cross_ndcg(aligned, users) > 2 * cross_ndcg(unaligned, users)
    unaligned, queries = (opened(destination, f"queries-{name}") for name in ("none", "behaviour"))
    assert cross_ndcg(queries, searched) > 2 * cross_ndcg(unaligned, searched)
    for name, engine in (("behaviour", aligned), ("queries-behaviour", queries)):
        pages = asked(destination.root, tmp_path / name, destination.model(name), contexts)
        assert pages == [engine.retrieve(context, 20, (), (), 0).item_ids for context in contexts]
