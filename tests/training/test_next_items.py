"""Next items without a query: who asks, what is relevant, and weights fitted to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards.candidates import Candidates
from shards.merging import ChannelResult, merge
from shards.search_context import History, SearchContext, UserState
from tests.training.shop_dataset import shop_dataset
from training.channels import Destination
from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset
from training.evaluation.next_items import NextItems, figures_of, next_items, recommend
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.merge_weights import fitted_weights
from training.pipeline import Run, Trained
from training.recipe import ChannelRecipe, Recipe
from training.recipes import RECIPES, dataset_of

RECIPE = Recipe(
    name="shop_next",
    surface="shop-next",
    channels=(
        ChannelRecipe(name="trending", source="trending", weight=1.0),
        ChannelRecipe(name="similar_users", source="user_cf", weight=0.0),
    ),
    fit_merge=True,
    exclude_actions=("purchase",),
    history_limit=500,
)


def times(*days: int) -> pa.Array:
    return pa.array([day * DAY_MS for day in days], TIMESTAMP)


def small() -> Dataset:
    """Return three users; the valid split starts on day 10, the test on day 20."""
    events = [
        ("u", "a", 1), ("u", "b", 11), ("u", "a", 21), ("u", "b", 21), ("u", "c", 22), ("u", "d", 22),
        ("v", "a", 12), ("v", "a", 22),
        ("w", "b", 23),
    ]  # fmt: skip
    users, items, days = zip(*events, strict=True)
    return Dataset(
        name="small",
        items=pa.table({"item_id": list("abcd"), "title": list("abcd")}),
        users=pa.table({"user_id": ["u", "v", "w"]}),
        events=pa.table(
            {
                "event_id": [str(row) for row in range(len(events))],
                "user_id": users,
                "item_id": items,
                "action": ["purchase"] * len(events),
                "timestamp": times(*days),
            }
        ),
        queries=pa.table({"timestamp": times(1, 10, 20), "split": ["train", "valid", "test"]}),
        queries_are_proxies=True,
    )


def test_users_with_a_past_ask_and_what_they_never_took_is_relevant() -> None:
    (asked,) = next_items(small(), "test", history_limit=1)
    assert asked.relevant == {"c", "d"}, "a and b were taken before; v takes nothing new, w has no past"
    assert asked.context == SearchContext(
        user=UserState(user_id="u", history=History(("b",), ("purchase",), (11 * DAY_MS,))),
        now_ms=20 * DAY_MS,
    )
    (earlier,) = next_items(small(), "valid", history_limit=10)
    assert (earlier.context.user.user_id, earlier.relevant) == ("u", frozenset("b"))
    with pytest.raises(ValueError, match="valid, test"):
        next_items(small(), "train", history_limit=1)


def users(*relevant: str) -> list[NextItems]:
    return [NextItems(context=SearchContext(now_ms=0), relevant=frozenset(r)) for r in relevant]


def test_figures_are_means_over_users() -> None:
    found = figures_of(users("ab", "cdef"), [("x", "a"), ("y",)])
    assert found.recall_20 == 0.25
    assert found.hit_rate_20 == 0.5
    assert found.ndcg_20 == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)) / 2)


def found(*item_ids: str) -> Candidates:
    return Candidates(item_ids=item_ids)


def test_weights_go_to_the_channel_that_finds_what_was_taken() -> None:
    asked = users("a", "b", "c")
    right = [found(letter, "z") for letter in "abc"]
    wrong = [found("x", "y", *(f"w{n}" for n in range(30)), letter) for letter in "abc"]
    retrieved = [{"wrong": w, "right": r} for w, r in zip(wrong, right, strict=True)]
    weights, ndcg = fitted_weights(asked, retrieved, {"wrong": 1.0, "right": 0.0})
    assert ndcg == 1.0
    assert weights["right"] > 0
    for user, lists in zip(asked, retrieved, strict=True):
        results = [ChannelResult(name=n, weight=weights[n], candidates=c) for n, c in lists.items()]
        assert merge(results, limit=40).item_ids[0] in user.relevant, "the router's merge agrees"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained(models_dir: Path) -> Trained:
    destination = Destination(root=models_dir, prefix="shop-next", version="1")
    run = Run(recipe=RECIPE, dataset=shop_dataset(), seed=0, gate=lambda *_: True)
    return run.train(destination)


def test_a_release_carries_fitted_weights_and_what_it_leaves_out(trained: Trained) -> None:
    weights = {channel.name: channel.weight for channel in trained.release.channels}
    assert weights["similar_users"] > 0, "users of one colour buy alike"
    assert trained.release.exclude_actions == ("purchase",)
    assert list(trained.figures) == ["next items, merged, NDCG@20"]


def test_nothing_that_was_taken_is_recommended(trained: Trained, models_dir: Path) -> None:
    asked = next_items(shop_dataset(), "test", history_limit=500)
    lists = recommend(open_cascade(trained.release, models_dir), asked)
    assert list(lists) == ["trending", "similar_users", HYBRID]
    for user, item_ids in zip(asked, lists[HYBRID], strict=True):
        assert not set(item_ids) & set(user.context.user.history.item_ids)
    again = open_cascade(replace(trained.release, exclude_actions=()), models_dir)
    assert (
        figures_of(asked, lists[HYBRID]).ndcg_20 > figures_of(asked, recommend(again, asked)[HYBRID]).ndcg_20
    )


def test_only_channels_without_a_model_have_their_merge_fitted() -> None:
    with pytest.raises(ValueError, match="fit_merge is for channels alone"):
        replace(RECIPES["online_retail"], fit_merge=True)


def test_a_surface_knows_its_data_set() -> None:
    assert dataset_of("online-retail-next") == "online_retail"
    assert dataset_of("gifts-uk") == "gifts_uk"
