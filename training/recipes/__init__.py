"""Recipes by name: what `headrace train` can train."""

from collections.abc import Mapping

from training.recipe import Recipe
from training.recipes.movielens import MOVIELENS
from training.recipes.online_retail import ONLINE_RETAIL

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (MOVIELENS, ONLINE_RETAIL)}
