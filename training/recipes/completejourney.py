"""What a household of the grocer of `completejourney` takes on a shopping trip: many tasks about one page.

Nobody watches anything here: **the amount that is spent on an item stands for watch time**. How much was
bought and whether by a coupon is known of what was bought alone, and whether it is bought again only four
weeks later; what is not yet known of the last trips is inferred.
"""

from shards.cross_kinds import ChannelColumn, HistoryCount, HistoryRecency, ItemNumber, ReciprocalRank
from shards.feature_kinds import Category, HistoryAges, HistoryItems, Number, Tokens
from shards.features import Feature
from training.channel_recipe import ChannelRecipe
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe
from training.tasks import Task
from training.trainer import FitConfig

_AGES_DAYS = (1.0, 7.0, 14.0, 30.0, 60.0, 120.0)

_CHANNELS = (
    ChannelRecipe(name="own", source="own", k=40, quota=20, weight=2.0),
    ChannelRecipe(name="popular", source="popular", k=60, quota=40),
    ChannelRecipe(name="brands", source="author", column="brand", k=40, quota=10),
    ChannelRecipe(name="makers", source="author", column="manufacturer", k=40, quota=10),
    ChannelRecipe(name="similar_items", source="item_cf", shrink=20.0, k=40, quota=10),
    ChannelRecipe(name="trending", source="trending", k=40, quota=10),
)

COMPLETEJOURNEY_TASKS = (
    Task(name="purchase", actions=("purchase",), negatives=0.2),
    Task(
        name="repurchase", given=("purchase",), actions=("purchase",), window_s=28 * 86_400, unclosed="infer"
    ),
    Task(name="quantity", kind="regression", value="quantity"),
    Task(name="amount", kind="watch_time", value="amount"),
    Task(name="coupon", value="coupon_discount", above=0.01),
)

_COLUMNS = ("brand", "label", "department", "category")
_DEMOGRAPHICS = ("age", "income", "household_size", "household_comp", "kids_count")
_STATISTICS = ("popularity", "popularity_7d", "popularity_30d", "trending")

_RANKING: tuple[Feature, ...] = (
    HistoryItems(name="history_items", max_len=30),
    HistoryAges(name="history_ages", max_len=30, boundaries_days=_AGES_DAYS),
    Tokens(name="title_tokens", source="item.title", max_len=8),
    *(Category(name=f"item_{name}", source=f"item.{name}", vocabulary=()) for name in _COLUMNS),
    *(Category(name=f"user_{name}", source=f"user.{name}", vocabulary=()) for name in _DEMOGRAPHICS),
    Number(name="item_price", source="item.price", log1p=True),
    *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in _CHANNELS),
    ChannelColumn(name="own_score", column="own.score"),
    ChannelColumn(name="merge_score", column="merge.score"),
    HistoryCount(name="own_count"),
    HistoryRecency(name="own_recency", half_life_days=14),
    *(ItemNumber(name=name, source=f"item.{name}", log1p=True) for name in _STATISTICS),
    ItemNumber(name="price", source="item.price", log1p=True),
)

COMPLETEJOURNEY = Recipe(
    name="completejourney",
    surface="completejourney",
    channels=_CHANNELS,
    tasks=COMPLETEJOURNEY_TASKS,
    features=FeatureRecipe(ranking=_RANKING, vocab_size=1000),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(
            width=16,
            sharing="bottom",
            members=3,
            wide_tasks=tuple(task.name for task in COMPLETEJOURNEY_TASKS if task.kind == "binary"),
            tasks=tuple(task.name for task in COMPLETEJOURNEY_TASKS),
        ),
        training=RankingTraining(
            fit=FitConfig(epochs=8, batch_size=64, learning_rate=2e-3, last_rate=0.05),
            listwise_weight=0.0,
            binary_weight=1.0,
            calibrate=True,
        ),
        candidates=120,
    ),
    merged=120,
    attributes=("title", "brand"),
    start_at_rate=True,
    ranking_days=120.0,
    ranking_queries=12_000,
)
"""About two minutes of one core."""
