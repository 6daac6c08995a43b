"""Search in the gift shop of `online_retail` along learned paths, beside the same towers over all items.

Both channels are one model: what brute force finds says how much the paths lose.
"""

from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.path_model import PathModelConfig
from training.paths import PathTraining
from training.recipe import FeatureRecipe, Recipe
from training.recipes.online_retail import ONLINE_RETAIL
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

DEEP_RETRIEVAL = Recipe(
    name="deep_retrieval",
    surface="online-retail-paths",
    dataset="online_retail",
    channels=(
        ChannelRecipe(name="paths", source="deep_retrieval", k=100),
        ChannelRecipe(name="brute_force", source="two_tower", k=100, quota=0, weight=0.0),
    ),
    features=FeatureRecipe(two_tower=ONLINE_RETAIL.features.two_tower),
    two_tower=TwoTowerTraining(fit=FitConfig(epochs=12, batch_size=1024, learning_rate=4e-3, patience=3)),
    paths=PathTraining(
        model=PathModelConfig(layers=3, nodes=16, paths=2, hidden=128),
        weight=0.3,
        penalty=0.1,
        looked_at=32,
        beam=128,
    ),
    gate=GateRules(mode="always"),
    attributes=("title", "price_gbp"),
)
"""About 10 minutes on two cores."""
