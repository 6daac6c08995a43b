"""What customers of one shop take in another, by item vectors of both in one space.

A history in shop "a" finds items of shop "b" where the search filters by `shop`; without a filter it finds
items of both.
"""

from dataclasses import replace

from shards.feature_kinds import HistoryItems, ItemId
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.prod2vec import Prod2VecTraining
from training.recipe import FeatureRecipe, Recipe

CROSS_SHOP = Recipe(
    name="cross_shop",
    surface="cross-shop",
    dataset="two_shops",
    channels=(ChannelRecipe(name="prod2vec", source="two_tower", k=200),),
    features=FeatureRecipe(
        two_tower=(HistoryItems(name="history_items", max_len=30), ItemId(name="item_row"))
    ),
    prod2vec=Prod2VecTraining(shop="shop"),
    gate=GateRules(mode="always"),
    attributes=("title", "shop"),
    two_tower_queries=8,
)
"""Two minutes on one core."""

CROSS_SHOP_QUERIES = replace(
    CROSS_SHOP,
    name="cross_shop_queries",
    surface="cross-shop-queries",
    channels=(ChannelRecipe(name="suggestions", source="suggestions", k=200),),
)
"""The same vectors; what is found are queries to suggest, by `shop` and number of `searches`."""
