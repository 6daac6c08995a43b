"""What households of the grocer of `completejourney` buy next, of what they never bought.

Settings were chosen by NDCG@20 on the valid month, never on the test.
"""

from training.channel_recipe import ChannelRecipe
from training.recipe import Recipe

COMPLETEJOURNEY_NEXT = Recipe(
    name="completejourney_next",
    surface="completejourney-next",
    dataset="completejourney",
    channels=(
        ChannelRecipe(name="makers", source="author", column="manufacturer"),
        ChannelRecipe(name="brands", source="author", column="brand"),
        ChannelRecipe(name="kinds", source="author", column="type"),
        ChannelRecipe(name="similar_users", source="user_cf", neighbours=200),
        ChannelRecipe(name="similar_items", source="item_cf", shrink=20.0),
        ChannelRecipe(name="popular", source="popular"),
        ChannelRecipe(name="trending", source="trending", discovery=True),
    ),
    fit_merge=True,
    merged=300,
    exclude_actions=("purchase",),
    attributes=("title", "brand"),
    history_limit=500,
)
"""About a minute on two cores."""
