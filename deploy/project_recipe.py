"""The recipe of a project: what its file says of features, channels, gate and settings, made whole."""

from dataclasses import replace

from deploy.project import Project
from deploy.project_file import GENERAL
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json
from training.channel_recipe import ChannelRecipe
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes.general import general_channels, general_recipe
from training.shop_columns import OF_EVENTS, ShopColumns


def project_recipe(project: Project) -> Recipe:
    """Return what is trained, overrides included. Raises `InvalidInput` naming the key at fault."""
    try:
        return with_overrides(_base(project), project.file.overrides())
    except ValueError as error:
        raise InvalidInput(FieldViolation(str(project.path), str(error))) from error


def check_columns(project: Project, recipe: Recipe, dataset: Dataset) -> None:
    """Raise `InvalidInput` naming every column that the project's recipe reads and the tables lack."""
    of_events = set(OF_EVENTS) & set(dataset.events.column_names)
    items, users = {*dataset.items.column_names, *of_events}, set(dataset.users.column_names)
    features = project.file.features
    read = [
        *((f"features.{kind}", name) for kind, names in features.items() for name in names),
        *((f"channels.{c.name}.text", name) for c in recipe.channels for name in c.text),
        *((f"channels.{c.name}.lexical", name) for c in recipe.channels for name in c.lexical.text_columns),
    ]
    problems = [
        FieldViolation(f"{project.path}: {where}", f"{name!r} is no column of the tables")
        for where, name in read
        if name not in (users if where.startswith("features.user_") else items)
    ]
    if problems:
        raise InvalidInput(*problems)


def _base(project: Project) -> Recipe:
    said = project.file
    columns = from_json(ShopColumns, said.features, "features")
    named = said.channels.items()
    channels = tuple(
        from_json(ChannelRecipe, {"name": name, **settings}, f"channels.{name}") for name, settings in named
    )
    if said.recipe.base == GENERAL:
        return general_recipe(said.surface, columns, channels or general_channels(columns), said.gate)
    if said.recipe.base not in RECIPES:
        raise ValueError(f"recipe.base {said.recipe.base!r} is none of {', '.join((GENERAL, *RECIPES))}")
    if said.features or "gate" in project.document:
        raise ValueError(f"features and gate are for the recipe {GENERAL!r}; set others by recipe.set")
    known = replace(RECIPES[said.recipe.base], name=said.surface, surface=said.surface)
    return replace(known, channels=channels) if channels else known
