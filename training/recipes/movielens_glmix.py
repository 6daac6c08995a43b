"""Which films of MovieLens-100K a user likes among those that they rate, by a GLMix.

LinkedIn Learning's recommender weighs examples by watch time. There is none here: **stars stand for it**, so
that a film of five stars weighs a quarter more than one of four. A rating tells at once whether a film was
liked, so that hardly a label waits for its window of 14 days. `headrace retrain` goes on from its release.
"""

from shards.cross_kinds import ItemNumber
from shards.feature_kinds import Categories, Category, HashedId, ItemId, Number
from training.channel_recipe import ChannelRecipe
from training.event_labels import LabelRule
from training.glmix_recipe import GLMixRecipe
from training.recipe import FeatureRecipe, Recipe

MOVIELENS_GLMIX = Recipe(
    name="movielens_glmix",
    surface="movielens-glmix",
    dataset="movielens",
    channels=(
        ChannelRecipe(name="neighbours", source="item_cf", k=150, quota=60, top=50, actions=("like",)),
        ChannelRecipe(name="popular", source="popular", k=150, quota=60, popularity="popularity_30d"),
    ),
    features=FeatureRecipe(
        ranking=(
            HashedId(name="user_id", source="user_id", buckets=32_768),
            Category(name="gender", source="user.gender", vocabulary=()),
            Category(name="occupation", source="user.occupation", vocabulary=()),
            Number(name="age", source="user.age"),
            ItemId(name="item_row"),
            Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
            Category(name="decade", source="item.decade", vocabulary=()),
            Number(name="release_year", source="item.release_year"),
            ItemNumber(name="popularity", source="item.popularity", log1p=True),
            ItemNumber(name="popularity_30d", source="item.popularity_30d", log1p=True),
            ItemNumber(name="rating", source="item.rating"),
        ),
    ),
    glmix=GLMixRecipe(
        labels=LabelRule(positive=("like",), negative=("watch",), window_days=14, weight="rating"),
        candidates=250,
    ),
    exclude_actions=("like", "watch"),
    attributes=("title", "release_year", "genres"),
    merged=250,
    history_limit=1_000,
    refresh_days=1.0,
)
"""A minute of one core."""
