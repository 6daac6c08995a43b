"""Queries that mean several things in the gift shop of `online_retail`: a query tower with two heads (DPSR).

Negatives are the batch's own items and random ones that the batch shares; the margin is in cosines, as the
temperature stays 1. The queries are proxies made from the bought title.
"""

from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.recipes.online_retail import ONLINE_RETAIL
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

DPSR = Recipe(
    name="dpsr",
    surface="online-retail-dpsr",
    dataset="online_retail",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),),
    features=FeatureRecipe(two_tower=ONLINE_RETAIL.features.two_tower),
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(heads=2, head_temperature=0.03, temperature=1.0, learned_temperature=False),
        fit=FitConfig(epochs=8, batch_size=1024, learning_rate=4e-3, patience=2),
        loss="hinge",
        margin=0.3,
        log_q=False,
    ),
    gate=GateRules(mode="always"),
    attributes=("title", "price_gbp"),
)
"""About six minutes on two cores."""
