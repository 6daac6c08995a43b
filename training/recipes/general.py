"""A recipe for a shop that nobody has tuned one for: its features come from what its columns hold.

Words find items, by BM25 and by what is popular of what a word names; embeddings, what queries led to, what
others took beside the user's items and the user's own items add to them; a gate, a pre-ranker and a ranker
decide. It trains in minutes on two cores.
"""

from collections.abc import Sequence

from shards.cross_kinds import (
    HISTORY_MEASURES,
    ChannelColumn,
    HistoryCount,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    ReciprocalRank,
)
from shards.feature_kinds import (
    Categories,
    Category,
    HistoryAges,
    HistoryCategory,
    HistoryItems,
    ItemId,
    Ngrams,
    Number,
    Tokens,
)
from shards.features import Feature
from shards.lexical import LexicalParams
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.gate import GateTraining
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.models.three_tower import ThreeTowerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe
from training.shop_columns import ShopColumns
from training.tasks import Task
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

_TASK = "take"
_AGES_DAYS = (0.01, 1.0, 7.0, 30.0, 120.0)
_HISTORY_EVENTS = 30
_NGRAM_BUCKETS = 8_192
_STATISTICS = (
    "popularity",
    "popularity_7d",
    "popularity_30d",
    "popularity_daily",
    "trending",
    "age_days",
    "idle_days",
)


def general_channels(columns: ShopColumns) -> tuple[ChannelRecipe, ...]:
    """Return the channels that suit most shops; BM25 stands alone, so that all else can be measured by it."""
    words = columns.words
    return (
        ChannelRecipe(
            name="lexical", source="lexical", k=200, quota=40, lexical=LexicalParams(text_columns=words)
        ),
        ChannelRecipe(name="embedding", source="two_tower", k=200, quota=60, gated=True),
        ChannelRecipe(name="memory", source="query_memory", k=100, quota=40),
        ChannelRecipe(name="word_popular", source="title_popularity", k=150, quota=40, text=words),
        ChannelRecipe(name="neighbours", source="item_cf", k=100, quota=40, weight=0.3, top=50),
        ChannelRecipe(name="own", source="own", k=50, quota=20, weight=0.3),
        ChannelRecipe(name="popular", source="popular", k=100, quota=20, weight=0.3),
    )


def general_recipe(
    surface: str, columns: ShopColumns, channels: Sequence[ChannelRecipe], gate: GateRules
) -> Recipe:
    """Return the recipe of a surface over such columns; raises ValueError for what does not fit together."""
    request, item = _request(columns), _item(columns)
    fit = FitConfig(epochs=4, batch_size=64, learning_rate=2e-3, last_rate=0.1, patience=1)
    return Recipe(
        name=surface,
        surface=surface,
        channels=tuple(channels),
        tasks=(Task(name=_TASK, target_only=True),),
        features=FeatureRecipe(
            two_tower=(*request, *item, ItemId(name="item_row")),
            ranking=(*request, *item, *_cross(columns, channels)),
            token_sources=columns.words,
        ),
        two_tower=TwoTowerTraining(
            fit=FitConfig(epochs=3, batch_size=1024, learning_rate=6e-3, patience=1), negatives=1024
        ),
        pre_ranker=RankerRecipe(
            model=ThreeTowerConfig(tasks=(_TASK,)),
            training=RankingTraining(fit=fit, sampled=60),
            candidates=400,
        ),
        ranker=RankerRecipe(
            model=MultiTaskRankerConfig(tasks=(_TASK,), sharing="bottom"),
            training=RankingTraining(fit=fit, sampled=60),
            candidates=150,
        ),
        gate=gate,
        gate_model=GateTraining() if gate.learned else None,
        attributes=columns.shown,
        ranking_queries=4_000,
        two_tower_queries=50_000,
    )


def _request(columns: ShopColumns) -> tuple[Feature, ...]:
    events = _HISTORY_EVENTS
    return (
        Tokens(name="query_tokens", source="query", max_len=8),
        Ngrams(name="query_ngrams", source="query", buckets=_NGRAM_BUCKETS, max_len=24),
        HistoryItems(name="history_items", max_len=events),
        HistoryAges(name="history_ages", max_len=events, boundaries_days=_AGES_DAYS),
        *(
            HistoryCategory(name=f"history_of_{c}", source=f"item.{c}", vocabulary=(), max_len=events)
            for c in columns.categories
        ),
        *(Category(name=f"user_{c}", source=f"user.{c}", vocabulary=()) for c in columns.user_categories),
        *(Number(name=f"user_{c}", source=f"user.{c}", log1p=True) for c in columns.user_numbers),
    )


def _item(columns: ShopColumns) -> tuple[Feature, ...]:
    title = columns.texts[0]
    return (
        *(Tokens(name=f"words_{c}", source=f"item.{c}", max_len=12) for c in columns.words),
        Ngrams(name="title_ngrams", source=f"item.{title}", buckets=_NGRAM_BUCKETS, max_len=40),
        *(Category(name=f"category_{c}", source=f"item.{c}", vocabulary=()) for c in columns.categories),
        *(Categories(name=f"tags_{c}", source=f"item.{c}", vocabulary=(), max_len=8) for c in columns.tags),
        *(Number(name=f"value_{c}", source=f"item.{c}", log1p=True) for c in columns.numbers),
    )


def _cross(columns: ShopColumns, channels: Sequence[ChannelRecipe]) -> tuple[Feature, ...]:
    return (
        *(ChannelColumn(name=f"{c.name}_score", column=f"{c.name}.score") for c in channels),
        *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in channels),
        ChannelColumn(name="merge_score", column="merge.score"),
        HistoryCount(name="own_count"),
        HistoryRecency(name="own_recency_1d", half_life_days=1),
        HistoryRecency(name="own_recency_30d", half_life_days=30),
        HistoryShare(name="own_share"),
        *(HistorySize(name=f"history_size_{of}", of=of) for of in HISTORY_MEASURES),
        *(QueryOverlap(name=f"overlap_{c}", source=f"item.{c}") for c in columns.words),
        NgramOverlap(name="ngram_overlap", source=f"item.{columns.texts[0]}"),
        *(ItemNumber(name=name, source=f"item.{name}", log1p=True) for name in _STATISTICS),
        *(ItemNumber(name=f"number_{c}", source=f"item.{c}", log1p=True) for c in columns.numbers),
    )
