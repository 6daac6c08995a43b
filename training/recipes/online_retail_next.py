"""What customers of the gift shop of `online_retail` buy next, without a query, of what they never bought.

Six channels, merged by weights that are fitted on the valid month. Half lives and the like were chosen by
NDCG@20 on that month and on the 34 days before it, never on the test.
"""

from training.channel_recipe import ChannelRecipe
from training.recipe import Recipe

ONLINE_RETAIL_NEXT = Recipe(
    name="online_retail_next",
    surface="online-retail-next",
    dataset="online_retail",
    channels=(
        ChannelRecipe(
            name="similar_users",
            source="user_cf",
            like_half_life_days=180.0,
            fresh_half_life_days=20.0,
            neighbours=200,
            discovery=True,
        ),
        ChannelRecipe(
            name="lately_similar_users",
            source="user_cf",
            weight=0.1,
            like_half_life_days=45.0,
            fresh_half_life_days=20.0,
            neighbours=200,
            discovery=True,
        ),
        ChannelRecipe(
            name="similar_items",
            source="item_cf",
            weight=0.1,
            like_half_life_days=60.0,
            fresh_half_life_days=30.0,
            interest_half_life_days=45.0,
            shrink=10.0,
            discovery=True,
        ),
        ChannelRecipe(
            name="swing",
            source="swing",
            weight=0.1,
            window_days=45.0,
            user_weights=True,
            interest_half_life_days=30.0,
        ),
        ChannelRecipe(name="trending", source="trending", weight=0.1, half_life_days=3.0, discovery=True),
        ChannelRecipe(name="new", source="new", weight=0.0, quota=5, within_days=21.0),
    ),
    fit_merge=True,
    merged=200,
    exclude_actions=("purchase",),
    attributes=("title",),
    history_limit=2000,
)
"""About a minute on two cores."""
