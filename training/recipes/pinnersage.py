"""A user of the gift shop of `online_retail` told by a few items: PinnerSage's medoids.

Vectors are those of the recipe `avito`. Interests are computed on the shard from the history that comes with
a search, so that what a user just did counts, and no store of users has to be filled daily.
"""

from shards.interests import InterestParams
from training.recipe import ChannelRecipe, Recipe
from training.recipes.avito import FEATURES, TRAINING

PINNERSAGE = Recipe(
    name="pinnersage",
    surface="online-retail-interests",
    dataset="online_retail",
    channels=(
        ChannelRecipe(
            name="interests", source="item_vectors", k=400, quota=400, interests=InterestParams(cut=1.2)
        ),
    ),
    features=FEATURES,
    item_pairs=TRAINING,
    exclude_actions=("purchase",),
    attributes=("title",),
    history_limit=400,
)
"""About three minutes on two cores."""
