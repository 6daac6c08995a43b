"""What ranking scored high for somebody and no page has shown, for their next visit to MovieLens-100K (C7).

The data has no pages, so that a release replays searches first: `headrace pages` writes the data set that
this recipe is trained and measured on. Without it channel "left_over" finds nothing.
"""

from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.page_log import UNSHOWN
from training.recipe import Recipe

_TAKEN = ("like", "watch")

MOVIELENS_LEFT_OVER = Recipe(
    name="movielens_left_over",
    surface="movielens-left-over",
    dataset="movielens",
    channels=(
        ChannelRecipe(
            name="left_over",
            source="cached",
            actions=(UNSHOWN,),
            within_days=7.0,
            half_life_days=1.0,
            quota=50,
        ),
        ChannelRecipe(name="popular", source="popular", popularity="popularity"),
        ChannelRecipe(name="trending", source="trending", half_life_days=30.0),
    ),
    gate=GateRules(mode="always"),
    exclude_actions=_TAKEN,
    attributes=("title", "release_year", "genres"),
    history_limit=10_000,
)
"""Seconds; a page leaves 30 events, so that the history has to be long."""
