"""Sequences to train a history transformer on within seconds: made up, and cut from the real data."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from training.datasets import amazon_beauty
from training.datasets.tables import Dataset
from training.models.history_transformer import HistoryTransformerConfig
from training.recipe import Recipe
from training.recipes import RECIPES
from training.trainer import FitConfig


def rounds(users: int = 120, items: int = 12) -> Dataset:
    """Return users who take items in a fixed order, from different ones on: the next one is certain."""
    sequences = [
        (f"u{user}", [f"i{(user + step) % items}" for step in range(4 + user % 5)]) for user in range(users)
    ]
    return amazon_beauty.dataset_of("rounds", sequences, {f"i{i}": [str(i % 3)] for i in range(items)})


def real_slice(users: int) -> Dataset:
    """Return the first users of the real data; skips the test where it is not there."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return amazon_beauty.first_users(amazon_beauty.load(Path(folder)), users)


def small(name: str, *, epochs: int, **changes: object) -> Recipe:
    """Return a recipe with a small model that is trained for so many epochs."""
    recipe = RECIPES[name]
    assert recipe.sequences
    sequences = replace(
        recipe.sequences,
        model=HistoryTransformerConfig(width=16, layers=1, heads=2, dropout=0.0),
        fit=FitConfig(epochs=epochs, batch_size=32, learning_rate=0.01, weight_decay=0.0, patience=epochs),
        negatives=256,
        **changes,  # type: ignore[arg-type]
    )
    return replace(recipe, sequences=sequences)
