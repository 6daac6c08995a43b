"""The next film of MovieLens-100K by ids alone: what a model cannot know of who came after its training.

The query tower reads who asks, by a hash, and no history: somebody new is nobody to it until it learns again.
`headrace update` goes on from its release, once a day with all of it and in between with its tables.
"""

from shards.feature_kinds import Categories, Category, HashedId, Number, Tokens
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining
from training.updates import UpdateTraining

MOVIELENS_UPDATES = Recipe(
    name="movielens_updates",
    surface="movielens-updates",
    dataset="movielens",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),),
    features=FeatureRecipe(
        two_tower=(
            HashedId(name="user_id", source="user_id", buckets=8_192),
            Category(name="gender", source="user.gender", vocabulary=()),
            Category(name="occupation", source="user.occupation", vocabulary=()),
            Number(name="age", source="user.age"),
            HashedId(name="item_id", source="item.item_id", buckets=16_384),
            Tokens(name="title_tokens", source="item.title", max_len=12),
            Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
            Number(name="release_year", source="item.release_year"),
        ),
        token_sources=("title",),
    ),
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(history="none"),
        fit=FitConfig(epochs=6, batch_size=256, learning_rate=3e-3, patience=1),
        negatives=256,
    ),
    updates=UpdateTraining(
        full=FitConfig(epochs=1, batch_size=256, learning_rate=1e-3, weight_decay=0.0),
        tables=FitConfig(epochs=2, batch_size=64, learning_rate=0.1, weight_decay=0.0, optimizer="sgd"),
    ),
    # Nobody types a query: every search is a browse, which rules would keep from embeddings.
    gate=GateRules(mode="always"),
    exclude_actions=("like", "watch"),
    attributes=("title", "release_year", "genres"),
    history_limit=1_000,
    ranking_days=45,
    two_tower_queries=60_000,
)
"""Half a minute of one core."""
