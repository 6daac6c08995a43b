"""The demo: search in MovieLens-100K; the queries are proxies made from the liked film."""

from shards.cross_kinds import (
    ChannelColumn,
    HistoryCount,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    ReciprocalRank,
)
from shards.feature_kinds import (
    Categories,
    Category,
    HistoryAges,
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
from training.tasks import Task
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

_TEXTS = ("title", "genres", "decade")
_NGRAM_BUCKETS = 8_192

_CHANNELS = (
    ChannelRecipe(
        name="lexical",
        source="lexical",
        k=150,
        quota=40,
        lexical=LexicalParams(text_columns=_TEXTS, prior="prior"),
    ),
    ChannelRecipe(name="embedding", source="two_tower", k=150, quota=40, gated=True),
    ChannelRecipe(name="memory", source="query_memory", k=100, quota=30),
    ChannelRecipe(name="title_popular", source="title_popularity", k=150, quota=40, text=_TEXTS),
    ChannelRecipe(name="neighbours", source="item_cf", k=150, quota=40, weight=0.3, top=50),
    ChannelRecipe(name="popular", source="popular", k=100, quota=20, weight=0.3, popularity="popularity"),
)

_REQUEST: tuple[Feature, ...] = (
    Tokens(name="query_tokens", source="query", max_len=8),
    Ngrams(name="query_ngrams", source="query", buckets=_NGRAM_BUCKETS, max_len=24),
    HistoryItems(name="history_items", max_len=40),
    HistoryAges(name="history_ages", max_len=40, boundaries_days=(0.01, 1.0, 30.0)),
    Category(name="gender", source="user.gender", vocabulary=()),
    Category(name="occupation", source="user.occupation", vocabulary=()),
    Number(name="age", source="user.age"),
)

_ITEM: tuple[Feature, ...] = (
    Tokens(name="title_tokens", source="item.title", max_len=12),
    Tokens(name="genre_tokens", source="item.genres", max_len=8),
    Tokens(name="decade_tokens", source="item.decade", max_len=2),
    Ngrams(name="title_ngrams", source="item.title", buckets=_NGRAM_BUCKETS, max_len=48),
    Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
    Number(name="release_year", source="item.release_year"),
    ItemId(name="item_row"),
)

_CROSS: tuple[Feature, ...] = (
    *(ChannelColumn(name=f"{c.name}_score", column=f"{c.name}.score") for c in _CHANNELS),
    *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in _CHANNELS),
    ChannelColumn(name="merge_score", column="merge.score"),
    HistoryCount(name="own_count"),
    QueryOverlap(name="title_overlap", source="item.title"),
    QueryOverlap(name="genre_overlap", source="item.genres"),
    QueryOverlap(name="decade_overlap", source="item.decade"),
    NgramOverlap(name="ngram_overlap", source="item.title"),
    ItemNumber(name="popularity", source="item.popularity", log1p=True),
    ItemNumber(name="popularity_30d", source="item.popularity_30d", log1p=True),
    ItemNumber(name="rating", source="item.rating"),
)

_TASKS = ("like", "watch")
_RANKING_FIT = FitConfig(epochs=3, batch_size=64, learning_rate=2e-3, patience=1)

MOVIELENS = Recipe(
    name="movielens",
    surface="movielens",
    channels=_CHANNELS,
    tasks=(Task(name="like", target_only=True), Task(name="watch", window_s=600)),
    features=FeatureRecipe(
        two_tower=(*_REQUEST, *_ITEM), ranking=(*_REQUEST, *_ITEM, *_CROSS), token_sources=_TEXTS
    ),
    two_tower=TwoTowerTraining(fit=FitConfig(epochs=4, batch_size=1024, learning_rate=6e-3, patience=1)),
    pre_ranker=RankerRecipe(
        model=ThreeTowerConfig(tasks=_TASKS),
        training=RankingTraining(fit=_RANKING_FIT, sampled=60),
        candidates=300,
    ),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(tasks=_TASKS),
        training=RankingTraining(fit=_RANKING_FIT, sampled=60),
        candidates=150,
    ),
    gate=GateRules(mode="before", target_rate=0.7),
    gate_model=GateTraining(),
    merged=300,
    attributes=("title", "release_year", "genres"),
    history_limit=200,
    ranking_days=45,
    ranking_queries=4_500,
)
"""Less than three minutes on two cores."""
