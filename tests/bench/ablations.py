"""Recipes without one of their parts, to see what it gives."""

from dataclasses import replace

from training.recipe import Recipe


def without_features(recipe: Recipe, *names: str) -> Recipe:
    """Return the recipe whose two-tower model lacks these features, and what would share or read them."""
    training, features = recipe.two_tower, recipe.features
    kept = tuple(feature for feature in features.two_tower if feature.name not in names)
    shared = tuple(group for group in features.shared if not set(group) & set(names))
    neighbours = tuple(name for name in training.model.neighbours if name not in names)
    return replace(
        recipe,
        features=replace(features, two_tower=kept, shared=shared),
        two_tower=replace(training, model=replace(training.model, neighbours=neighbours)),
    )
