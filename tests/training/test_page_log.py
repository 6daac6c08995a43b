"""Pages replayed over real searches, and the channel that answers from what they did not show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.release import GateRules
from tests.training.movielens_slice import real_slice
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets.contexts import search_contexts
from training.datasets.splits import rows_of
from training.datasets.tables import Dataset
from training.evaluation.offline import open_cascade, retrieve, staged
from training.page_log import SHOWN, UNSHOWN, PageSize, with_pages
from training.pipeline import train
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run

SIZE = PageSize(shown=5, unshown=15)
ASKED, K = 600, 20


def without_models(recipe: Recipe) -> Recipe:
    """Return the recipe whose merged list is its page, so that it trains at once."""
    channels = tuple(channel for channel in recipe.channels if channel.source != "two_tower")
    return replace(recipe, channels=channels, pre_ranker=None, ranker=None, gate=GateRules(), gate_model=None)


def replayed(dataset: Dataset, root: Path) -> Dataset:
    """Return the dataset with the pages that a release as of the test gave its searches."""
    destination = Destination(root=root, prefix="films", version="1")
    recipe = without_models(RECIPES["movielens"])
    cascade = open_cascade(
        train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination).release, root
    )
    queries = rows_of(dataset.queries, "test")
    return with_pages(dataset, queries, cascade, gate=lambda *_: True, size=SIZE)


def test_what_pages_did_not_show_is_found_on_a_shard_and_leads_to_later_likes(tmp_path: Path) -> None:
    dataset = real_slice(300)
    paged = replayed(dataset, tmp_path / "pages")
    added = paged.events.num_rows - dataset.events.num_rows
    queries = rows_of(paged.queries, "test")
    assert 0 < added <= queries.num_rows * (SIZE.shown + SIZE.unshown)
    assert {SHOWN, UNSHOWN} <= set(paged.events.column("action").to_pylist())

    destination = Destination(root=tmp_path / "models", prefix="left", version="1")
    recipe = RECIPES["movielens_left_over"]
    release = train(Run(recipe=recipe, dataset=paged, seed=0, gate=lambda *_: True), destination).release
    contexts = list(search_contexts(paged, queries, history_limit=release.history_limit))[-ASKED:]
    taken = queries.column("item_id").to_pylist()[-ASKED:]
    pages = asked(tmp_path / "models", tmp_path / "state", release.channels[0].model, contexts, k=K)

    lengths, hits = 0, 0
    for context, item_ids, item_id in zip(contexts, pages, taken, strict=True):
        history = context.user.history
        newest = dict(zip(history.item_ids, history.actions, strict=True))
        assert all(newest[found] == UNSHOWN for found in item_ids)
        lengths += len(item_ids)
        hits += item_id in item_ids
    assert lengths
    assert hits > 3 * lengths / len(paged.items), "what came close is far better than chance"


def test_the_best_that_was_not_shown_comes_first_and_its_user_is_known(tmp_path: Path) -> None:
    dataset = real_slice(100)
    destination = Destination(root=tmp_path, prefix="films", version="1")
    recipe = without_models(RECIPES["movielens"])
    release = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination).release
    cascade, queries = open_cascade(release, tmp_path), rows_of(dataset.queries, "test").slice(0, 1)
    paged = with_pages(dataset, queries, cascade, gate=lambda *_: True, size=SIZE)
    (context,) = search_contexts(dataset, queries, history_limit=release.history_limit)
    found = staged(cascade, context, retrieve(cascade, context), gate_open=True, depth=20)
    ranking = list(found.values())[-1][:20]
    known = set(dataset.events.column("event_id").to_pylist())
    made = [event for event in paged.events.to_pylist() if event["event_id"] not in known]
    assert [event["item_id"] for event in reversed(made)] == list(ranking)
    assert [event["action"] for event in reversed(made)] == [SHOWN] * 5 + [UNSHOWN] * (len(made) - 5)
    assert {event["user_id"] for event in made} == {context.user.user_id}
    assert np.all([event["timestamp"].timestamp() * 1000 == context.now_ms for event in made])


def test_a_page_shows_something_and_leaves_something() -> None:
    with pytest.raises(ValueError, match="shown and unshown"):
        PageSize(shown=0)
