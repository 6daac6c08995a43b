"""What people think of a film that they come to rate: tasks whose labels only those films have.

There is no time in MovieLens: **the share of the five stars stands for completion, and the year of a film
for its length**. Old films are rated higher, as those that are still met are the good ones, so a completion
rate alone favours them as short videos are favoured elsewhere.
"""

from shards.cross_kinds import ChannelColumn, ItemNumber, ReciprocalRank
from shards.feature_kinds import Categories, HashedId, HistoryAges, HistoryItems, Number, Tokens
from shards.features import Feature
from training.channel_recipe import ChannelRecipe
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe
from training.tasks import Task
from training.trainer import FitConfig

_CHANNELS = (
    ChannelRecipe(name="similar_items", source="item_cf", k=150, quota=60),
    ChannelRecipe(name="popular", source="popular", popularity="popularity", k=150, quota=60),
    ChannelRecipe(name="trending", source="trending", k=60, quota=20),
)

MOVIELENS_SMALL_TASKS = (
    Task(name="rate", target_only=True, negatives=0.2),
    Task(name="like", value="rating", above=4.0),
    Task(name="rating", kind="regression", value="rating"),
    Task(name="completion", kind="completion", value="completion", length="release_year"),
)

_RANKING: tuple[Feature, ...] = (
    HistoryItems(name="history_items", max_len=30),
    HistoryAges(name="history_ages", max_len=30, boundaries_days=(1.0, 30.0, 365.0)),
    HashedId(name="user_id", source="user_id", buckets=2048),
    Tokens(name="title_tokens", source="item.title", max_len=8),
    Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
    Number(name="release_year", source="item.release_year"),
    *(ChannelColumn(name=f"{c.name}_score", column=f"{c.name}.score") for c in _CHANNELS),
    *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in _CHANNELS),
    ItemNumber(name="popularity", source="item.popularity", log1p=True),
    ItemNumber(name="item_rating", source="item.rating"),
)

MOVIELENS_SMALL = Recipe(
    name="movielens_small",
    surface="movielens-small",
    channels=_CHANNELS,
    tasks=MOVIELENS_SMALL_TASKS,
    features=FeatureRecipe(ranking=_RANKING, vocab_size=1000),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(
            width=16,
            sharing="bottom",
            members=3,
            tasks=tuple(task.name for task in MOVIELENS_SMALL_TASKS),
        ),
        training=RankingTraining(
            fit=FitConfig(epochs=6, batch_size=64, learning_rate=2e-3, last_rate=0.05),
            listwise_weight=0.0,
            binary_weight=1.0,
            calibrate=True,
        ),
        candidates=200,
    ),
    merged=200,
    exclude_actions=("rate",),
    attributes=("title",),
    history_limit=500,
    start_at_rate=True,
    ranking_days=1500.0,
    ranking_queries=10_000,
)
"""About five minutes on two cores."""
