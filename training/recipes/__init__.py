"""Recipes by name: what `headrace train` can train."""

from collections.abc import Mapping

from training.recipe import Recipe
from training.recipes.movielens import MOVIELENS
from training.recipes.online_retail import ONLINE_RETAIL
from training.recipes.online_retail_next import ONLINE_RETAIL_NEXT

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (MOVIELENS, ONLINE_RETAIL, ONLINE_RETAIL_NEXT)
}


def dataset_of(surface: str) -> str:
    """Return the data set that a surface's recipe trains on, or one of the surface's name."""
    trained = (recipe.dataset_name for recipe in RECIPES.values() if recipe.surface == surface)
    return next(trained, surface.replace("-", "_"))
