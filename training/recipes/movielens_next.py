"""The next film of MovieLens-100K that a user likes, without a query: one two-tower model.

How it is trained is a matter of settings: `two_tower.loss` is listwise, pointwise or pairwise, `negatives`,
`negative_power`, `in_batch`, `counted`, `log_q`, `streaming`, `rare_power` and `hard` say what it is trained
against.
"""

from shards.feature_kinds import Categories, Category, HistoryAges, HistoryItems, ItemId, Number, Tokens
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

MOVIELENS_NEXT = Recipe(
    name="movielens_next",
    surface="movielens-next",
    dataset="movielens",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),),
    features=FeatureRecipe(
        two_tower=(
            HistoryItems(name="history_items", max_len=40),
            HistoryAges(name="history_ages", max_len=40, boundaries_days=(0.01, 1.0, 30.0)),
            Category(name="gender", source="user.gender", vocabulary=()),
            Category(name="occupation", source="user.occupation", vocabulary=()),
            Number(name="age", source="user.age"),
            Tokens(name="title_tokens", source="item.title", max_len=12),
            Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
            Number(name="release_year", source="item.release_year"),
            ItemId(name="item_row"),
        ),
        token_sources=("title",),
    ),
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(history="mean"),
        fit=FitConfig(epochs=4, batch_size=256, learning_rate=6e-3, patience=1),
        negatives=256,
    ),
    # Nobody types a query: every search is a browse, which rules would keep from embeddings.
    gate=GateRules(mode="always"),
    exclude_actions=("like", "watch"),
    attributes=("title", "release_year", "genres"),
    history_limit=200,
    ranking_days=45,
    two_tower_queries=20_000,
)
"""Half a minute of one core."""
