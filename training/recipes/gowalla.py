"""Where users of `gowalla_poi` go next, of the places where they have not been."""

from shards.geo import GeoParams
from training.channel_recipe import ChannelRecipe
from training.recipe import Recipe

GOWALLA = Recipe(
    name="gowalla",
    surface="gowalla",
    dataset="gowalla_poi",
    channels=(
        ChannelRecipe(name="near", source="geo", geo=GeoParams(radius_km=100.0)),
        ChannelRecipe(
            name="popular_near",
            source="geo",
            geo=GeoParams(cell_bits=22, radius_km=20.0, order_by="popularity"),
        ),
        ChannelRecipe(name="similar_users", source="user_cf", neighbours=200),
        ChannelRecipe(name="trending", source="trending"),
    ),
    fit_merge=True,
    merged=300,
    exclude_actions=("checkin",),
    attributes=("latitude_deg", "longitude_deg"),
    history_limit=2000,
)
"""About a minute on two cores."""
