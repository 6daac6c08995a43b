"""Tuning a recipe: trials that last, those that are given up, and what is kept of the best."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from shards.errors import CorruptRecord, InvalidInput, NotFound
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.datasets.digest import digest_of
from training.overrides import with_overrides
from training.recipe import EMBEDDING_RECALL, Recipe, Searched, SearchSpace, version_of
from training.recipe_tuning import BEST_FILE, RecipeTuner, Tried, read_best

SPACE = SearchSpace(
    settings=(
        Searched(path="two_tower.fit.learning_rate", low=1e-6, high=3e-2, log=True),
        Searched(path="two_tower.negatives", low=8, high=32, integer=True),
        Searched(path="two_tower.loss", choices=("softmax", "logistic")),
    )
)
SEARCHING = replace(RECIPE, search=SPACE)


def tuner(
    folder: Path, tried: list[Tried], recipe: Recipe = SEARCHING, fixed: Sequence[str] = ()
) -> RecipeTuner:
    dataset = shop_dataset()
    return RecipeTuner(
        recipe=with_overrides(recipe, fixed),
        dataset=dataset,
        dataset_digest=digest_of(dataset),
        folder=folder,
        fixed=tuple(fixed),
        on_trial=tried.append,
    )


def test_the_best_is_kept_and_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    first: list[Tried] = []
    tuner(tmp_path, first).tune(3)
    later: list[Tried] = []
    best = tuner(tmp_path, later).tune(8)
    assert [one.number for one in (*first, *later)] == list(range(1, 9))
    tried = [one for one in (*first, *later) if one.value == one.value]
    assert best == read_best(tmp_path)
    assert (best.recipe, best.metric, best.trials) == ("shop", EMBEDDING_RECALL, 8)
    assert best.value == max(one.value for one in tried)
    assert best.settings in [one.settings for one in tried if one.value == best.value]
    assert len({one.settings for one in (*first, *later)}) == 8
    with_overrides(RECIPE, best.settings)


def test_a_trial_that_falls_behind_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning at a millionth of the rate never comes to what the others reach in an epoch."""
    # The shop has fewer items than the hundred among which recall is measured elsewhere.
    monkeypatch.setattr("training.embedding.RECALL_K", 3)
    hopeless = Searched(path="two_tower.fit.learning_rate", choices=("0.01", "1e-08"))
    space = SearchSpace(settings=(hopeless,))
    tried: list[Tried] = []
    fixed = ("two_tower.fit.patience=4",)
    tuner(tmp_path, tried, replace(RECIPE, search=space), fixed).tune(12)
    slow = [one for one in tried if one.settings[0].endswith("1e-08")]
    assert slow
    assert any(one.value != one.value for one in slow)
    best = read_best(tmp_path)
    assert best.settings == ("two_tower.fit.patience=4", "two_tower.fit.learning_rate=0.01")


def test_settings_under_which_a_loss_diverges_are_no_result(tmp_path: Path) -> None:
    space = SearchSpace(settings=(Searched(path="two_tower.fit.learning_rate", low=1e25, high=2e25),))
    tried: list[Tried] = []
    with pytest.raises(InvalidInput, match="no trial came to an end"):
        tuner(tmp_path, tried, replace(RECIPE, search=space)).tune(2)
    assert [one.value == one.value for one in tried] == [False, False]
    with pytest.raises(NotFound, match="tuned settings"):
        read_best(tmp_path)


def test_what_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'shop' declares no search space"):
        tuner(tmp_path, [], RECIPE)
    missing = replace(SEARCHING, search=replace(SPACE, metric="love")).embedding_alone()
    with pytest.raises(InvalidInput, match="'love' is none of the figures: embedding recall@100"):
        tuner(tmp_path, [], missing).tune(1)
    with pytest.raises(ValueError, match="low must be below high"):
        Searched(path="two_tower.negatives")
    with pytest.raises(ValueError, match="low must be positive"):
        Searched(path="two_tower.negatives", high=1, log=True)
    (tmp_path / BEST_FILE).write_text("{}")
    with pytest.raises(CorruptRecord, match=r"best\.json"):
        read_best(tmp_path)


def test_a_search_space_changes_nothing_of_what_is_made() -> None:
    assert version_of(SEARCHING, "data", 0) == version_of(RECIPE, "data", 0)


def test_trials_of_another_space_are_not_mixed_in(tmp_path: Path) -> None:
    tuner(tmp_path, []).tune(1)
    other = replace(SPACE, settings=SPACE.settings[:1])
    tried: list[Tried] = []
    tuner(tmp_path, tried, replace(SEARCHING, search=other)).tune(1)
    assert len(tried) == 1
    assert len(optuna.get_all_study_names(f"sqlite:///{tmp_path / 'trials.sqlite'}")) == 2
