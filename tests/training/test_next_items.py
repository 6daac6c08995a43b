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
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset
from training.evaluation.next_items import (
    NextItems,
    figures_of,
    keeping,
    leaving_out,
    next_items,
    recommend,
    sampled,
)
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.merge_weights import fitted_weights
from training.pipeline import Trained, train
from training.recipe import Recipe
from training.recipes import RECIPES, dataset_of
from training.run import Run

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


def test_places_five_and_ten_are_judged_apart() -> None:
    fifth, eighth = ((*(f"x{place}" for place in range(before)), "a") for before in (4, 7))
    figures = figures_of(users("a", "a"), [fifth, eighth])
    assert (figures.recall_5, figures.recall_10) == (0.5, 1.0)
    assert figures.ndcg_5 == pytest.approx(1 / np.log2(6) / 2)
    assert figures.ndcg_10 == pytest.approx((1 / np.log2(6) + 1 / np.log2(9)) / 2)
    spread = abs(1 / np.log2(6) - 1 / np.log2(9)) / 2
    assert figures.ndcg_10_error == pytest.approx(1.96 * spread / 2**0.5)
    assert figures.p90_items_10 == 7, "five items twice and two of three once: 12 of 13 places"


def test_a_sample_of_users_is_the_same_every_time() -> None:
    asked = [
        NextItems(context=SearchContext(user=UserState(user_id=f"u{n}"), now_ms=0), relevant=frozenset("a"))
        for n in range(50)
    ]
    some = sampled(asked, 7)
    assert len(some) == 7
    assert some == sampled(asked, 7)
    assert sampled(asked, 0) == asked


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
    return train(run, destination)


def test_a_release_carries_fitted_weights_and_what_it_leaves_out(trained: Trained) -> None:
    weights = {channel.name: channel.weight for channel in trained.release.channels}
    assert weights["similar_users"] > 0, "users of one colour buy alike"
    assert trained.release.exclude_actions == ("purchase",)
    names = ("Recall@10", "NDCG@10", "NDCG@20")
    assert list(trained.figures) == [f"next items, merged, {name}" for name in names]
    assert trained.figures["next items, merged, NDCG@20"] > 0


def test_nothing_that_was_taken_is_recommended(trained: Trained, models_dir: Path) -> None:
    asked = next_items(shop_dataset(), "test", history_limit=500)
    lists = recommend(open_cascade(trained.release, models_dir), asked)
    assert list(lists) == ["trending", "similar_users", HYBRID]
    for user, item_ids in zip(asked, lists[HYBRID], strict=True):
        assert not set(item_ids) & set(user.context.user.history.item_ids)
    kept = recommend(open_cascade(keeping(trained.release), models_dir), asked)[HYBRID]
    assert figures_of(asked, lists[HYBRID]).ndcg_20 > figures_of(asked, kept).ndcg_20
    released_again = leaving_out(keeping(trained.release), shop_dataset())
    assert recommend(open_cascade(released_again, models_dir), asked)[HYBRID] == lists[HYBRID]


def test_only_channels_alone_have_their_merge_fitted() -> None:
    with pytest.raises(ValueError, match="fit_merge is for channels alone"):
        replace(RECIPES["online_retail"], fit_merge=True)


def test_a_surface_knows_its_data_set() -> None:
    assert dataset_of("online-retail-next") == "online_retail"
    assert dataset_of("gifts-uk") == "gifts_uk"
