"""What users of `amazon_beauty` review next, told by a few of the items that they reviewed: PinnerSage.

Vectors know an item by itself and by its attributes, and learn from items that one user reviewed within five
steps: the data has an order and no times. Medoids are computed on the shard from the history that a search
brings, so that what a user just did counts, and no store of users has to be filled daily.
"""

from shards.feature_kinds import Categories, ItemId
from shards.interests import InterestParams
from training.channel_recipe import ChannelRecipe
from training.item_pairs import ItemPairTraining
from training.models.item_tower import ItemTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig

TRAINING = ItemPairTraining(
    model=ItemTowerConfig(output="unit"),
    fit=FitConfig(epochs=2, batch_size=256, learning_rate=5e-3, weight_decay=0.0),
    within_hours=120.0,
    negatives=1500,
    about=False,
    hardest=0,
)
"""Losses of the hardest negatives alone leave unit vectors in a narrow cone, where no cut parts clusters."""

PINNERSAGE = Recipe(
    name="pinnersage",
    surface="beauty-interests",
    dataset="amazon_beauty",
    channels=(
        ChannelRecipe(
            name="interests", source="item_vectors", k=400, quota=400, interests=InterestParams(cut=1.3)
        ),
    ),
    features=FeatureRecipe(
        two_tower=(
            ItemId(name="item_row"),
            Categories(name="attributes", source="item.attributes", vocabulary=(), max_len=8),
        )
    ),
    item_pairs=TRAINING,
    exclude_actions=("review",),
    attributes=("attributes",),
    history_limit=100,
)
"""A minute on one core."""
