"""Recipes: overrides from the command line, and versions."""

from dataclasses import replace

import pytest

from shards.errors import InvalidInput
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.overrides import with_overrides
from training.recipe import Recipe, version_of
from training.recipes import CARDS, RECIPES
from training.tasks import Task

RECIPE = RECIPES["movielens"]


def test_overrides_reach_every_depth_and_type() -> None:
    changed = with_overrides(
        RECIPE,
        [
            "two_tower.fit.epochs=3",
            "two_tower.model.history=mean",
            "two_tower.log_q=false",
            "ranker.training.fit.learning_rate=0.01",
            "ranker.model.experts=5",
            "attributes=('title',)",
            "merged=123",
        ],
    )
    assert changed.two_tower.fit.epochs == 3
    assert changed.two_tower.model.history == "mean"
    assert changed.two_tower.log_q is False
    assert changed.ranker
    assert changed.ranker.training.fit.learning_rate == 0.01
    assert changed.ranker.model.experts == 5
    assert changed.attributes == ("title",)
    assert changed.merged == 123
    assert changed.channels == RECIPE.channels


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("two_tower.fit.epoch=3", "'epoch' is no setting; there are epochs, batch_size"),
        ("nothing=3", "'nothing' is no setting"),
        ("two_tower.fit.epochs", "must be path.to.setting=value"),
        ("two_tower.fit.epochs=many", "invalid literal"),
        ("two_tower.fit.epochs=0", "at least 1"),
        ("two_tower.model.history=memory", "attention, mean, none"),
        ("two_tower.log_q=perhaps", "neither true nor false"),
        ("two_tower.fit=3", "is a group of settings"),
        ("merged.more=3", "has no settings below it"),
        ("channels=()", "can be set"),
        ("attributes=(1,)", "tuples of texts"),
        ("attributes=(", "no Python literal"),
        ("holdout=1.0", "share between 0 and 1"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        with_overrides(RECIPE, [override])
    assert override in str(refused.value)
    assert problem in str(refused.value)


def test_a_version_depends_on_recipe_data_and_seed_alone() -> None:
    changed = with_overrides(RECIPE, ["merged=123"])
    versions = [
        version_of(RECIPE, "data", 0),
        version_of(changed, "data", 0),
        version_of(RECIPE, "other data", 0),
        version_of(RECIPE, "data", 1),
    ]
    assert len(set(versions)) == 4
    assert version_of(with_overrides(changed, [f"merged={RECIPE.merged}"]), "data", 0) == versions[0]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_rankers_predict_the_recipes_tasks(recipe: Recipe) -> None:
    tasks = tuple(task.name for task in recipe.tasks)
    for ranker in (recipe.pre_ranker, recipe.ranker):
        assert ranker is None or ranker.model.tasks == tasks


def test_contradictions_are_refused() -> None:
    twice = (ChannelRecipe(name="a", source="lexical"), ChannelRecipe(name="a", source="popular"))
    with pytest.raises(ValueError, match="must differ"):
        replace(RECIPE, channels=twice)
    with pytest.raises(ValueError, match="first task"):
        replace(RECIPE, tasks=(Task(name="stars", kind="regression", value="rating"), *RECIPE.tasks))
    with pytest.raises(ValueError, match="those of a ranker's model differ"):
        replace(RECIPE, tasks=tuple(reversed(RECIPE.tasks)))
    towers = (ChannelRecipe(name="a", source="two_tower"), ChannelRecipe(name="b", source="two_tower"))
    with pytest.raises(ValueError, match="at most one"):
        replace(RECIPE, channels=towers, gate_model=None, gate=GateRules())


def test_a_stage_that_a_recipe_lacks_has_no_settings() -> None:
    with pytest.raises(InvalidInput, match="no settings below it"):
        with_overrides(replace(RECIPE, ranker=None), ["ranker.candidates=3"])


def test_every_published_system_has_a_recipe() -> None:
    counts = {"R": 14, "C": 8, "P": 2, "K": 13}
    rows = {f"{kind}{row}" for kind, count in counts.items() for row in range(1, count + 1)}
    assert rows <= {system for card in CARDS for system in card.systems}
