"""Recipes and data sets as commands name them: a project's own, or those that come with Headrace."""

from deploy.project import project_of, project_with
from deploy.project_recipe import project_recipe
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes import dataset_of as known_dataset_of
from training.recipes import recipe_of as known_recipe_of


def recipe_named(name: str, folders: Workspace) -> Recipe:
    """Return a recipe by name; the project's has the name of its surface, and needs none.

    Raises `InvalidInput` for an unknown name.
    """
    project = project_of(folders)
    if project is not None and name in ("", project.surface):
        return project_recipe(project)
    if name not in RECIPES:
        problem = f"{name!r} is none of {', '.join(RECIPES)}" if name else "is missing: no project is here"
        raise InvalidInput(FieldViolation("recipe", problem))
    return RECIPES[name]


def recipe_of(surface: str, folders: Workspace) -> Recipe:
    """Return the recipe that makes releases of a surface; raises `InvalidInput` where none does."""
    project = project_with(surface, folders)
    return known_recipe_of(surface) if project is None else project_recipe(project)


def dataset_of(surface: str, folders: Workspace) -> str:
    """Return the data set that a surface's recipe trains on, or one of the surface's name."""
    project = project_with(surface, folders)
    return known_dataset_of(surface) if project is None else str(project.data_dir)


def dataset_named(name: str, recipe: Recipe, folders: Workspace) -> str:
    """Return the data set that a command names, or the recipe's."""
    if name:
        return name
    project = project_with(recipe.surface, folders)
    return recipe.dataset_name if project is None else str(project.data_dir)
