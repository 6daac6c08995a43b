"""Search in the gift shop of `online_retail` by vectors that carry what sells: Etsy's hydrated vectors."""

from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.hydrated import Hydration
from training.recipe import FeatureRecipe, Recipe
from training.recipes.online_retail import ONLINE_RETAIL

HYDRATED = Recipe(
    name="hydrated",
    surface="online-retail-hydrated",
    dataset="online_retail",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200),),
    features=FeatureRecipe(two_tower=ONLINE_RETAIL.features.two_tower),
    two_tower=ONLINE_RETAIL.two_tower,
    hydration=Hydration(
        columns=("popularity_7d", "popularity_30d", "popularity_90d", "popularity", "idle_days", "age_days")
    ),
    gate=GateRules(mode="always"),
    attributes=("title", "price_gbp"),
)
"""About 5 minutes on two cores."""
