"""Search in the gift shop of `online_retail`: the queries are proxies made from the bought title."""

from shards.cross_kinds import (
    HISTORY_MEASURES,
    MATCH_MEASURES,
    TAKES_MEASURES,
    ChannelColumn,
    ExactId,
    HistoryCount,
    HistoryGap,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    HistoryWords,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    QueryTakes,
    ReciprocalRank,
    WordMatch,
    WordPlaces,
)
from shards.feature_kinds import Category, HistoryAges, HistoryItems, ItemId, Ngrams, Number, Tokens
from shards.features import Feature
from shards.lexical import LexicalParams
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.gate import GateTraining
from training.item_graph import ItemGraph
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.models.three_tower import ThreeTowerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe, Searched, SearchSpace
from training.tasks import Task
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

_AGES_DAYS = (1.0, 7.0, 30.0, 60.0, 120.0, 240.0)
_NGRAM_BUCKETS = 16_384

_CHANNELS = (
    ChannelRecipe(
        name="lexical",
        source="lexical",
        k=300,
        quota=60,
        weight=7.0,
        lexical=LexicalParams(prior="trending_prior"),
    ),
    ChannelRecipe(name="embedding", source="two_tower", k=200, quota=40, weight=0.7, gated=True),
    ChannelRecipe(name="memory", source="query_memory", k=100, quota=40, weight=1.5),
    ChannelRecipe(name="word_memory", source="token_memory", k=150, quota=40, weight=0.0),
    ChannelRecipe(name="title_popular", source="title_popularity", k=200, quota=60, weight=0.3),
    ChannelRecipe(name="neighbours", source="item_cf", k=400, quota=10, weight=0.0, top=50),
    ChannelRecipe(name="own", source="own", k=100, quota=20, weight=1.5),
    ChannelRecipe(name="popular", source="popular", k=100, quota=10, weight=0.0),
)
"""Weights are fitted on September and October, to recall@100 of releases refreshed every day, and a little to
NDCG@10. Channels without weight do not order the merged list; their quotas and ranks reach the rankers."""

_HISTORY: tuple[Feature, ...] = (
    HistoryItems(name="history_items", max_len=50),
    HistoryAges(name="history_ages", max_len=50, boundaries_days=_AGES_DAYS),
)

_TEXT: tuple[Feature, ...] = (
    Tokens(name="query_tokens", source="query", max_len=8),
    Ngrams(name="query_ngrams", source="query", buckets=_NGRAM_BUCKETS, max_len=32),
    Tokens(name="title_tokens", source="item.title", max_len=16),
    Ngrams(name="title_ngrams", source="item.title", buckets=_NGRAM_BUCKETS, max_len=64),
    Ngrams(name="code_ngrams", source="item.item_id", buckets=_NGRAM_BUCKETS, max_len=8),
)

_STATISTICS = (
    *("popularity", "popularity_1d", "popularity_7d", "popularity_30d", "popularity_90d"),
    *("popularity_daily", "trending"),
)

_CROSS: tuple[Feature, ...] = (
    *(ChannelColumn(name=f"{c.name}_score", column=f"{c.name}.score") for c in _CHANNELS),
    *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in _CHANNELS),
    ChannelColumn(name="merge_score", column="merge.score"),
    HistoryCount(name="own_count"),
    HistoryRecency(name="own_recency_7d", half_life_days=7),
    HistoryRecency(name="own_recency_60d", half_life_days=60),
    *(HistoryRecency(name=f"own_recency_{d}d", half_life_days=d) for d in (1, 30, 240)),
    HistoryShare(name="own_share"),
    *(HistorySize(name=f"history_{of}", of=of) for of in HISTORY_MEASURES),
    HistoryGap(name="price_gap", source="item.price_gbp", log1p=True),
    HistoryGap(name="popularity_gap", source="item.popularity_30d", log1p=True),
    *(QueryTakes(name=f"takes_{of}", source="item.takes", of=of) for of in TAKES_MEASURES),
    *(WordMatch(name=f"match_{of}", source="item.title", of=of) for of in MATCH_MEASURES),
    WordPlaces(name="match_places", source="item.title"),
    HistoryWords(name="own_words", source="item.title"),
    QueryOverlap(name="token_overlap", source="item.title"),
    NgramOverlap(name="ngram_overlap", source="item.title"),
    NgramOverlap(name="code_overlap", source="item.item_id"),
    ExactId(name="exact_code"),
    *(ItemNumber(name=name, source=f"item.{name}", log1p=True) for name in _STATISTICS),
    ItemNumber(name="price", source="item.price_gbp", log1p=True),
    ItemNumber(name="age", source="item.age_days", log1p=True),
    ItemNumber(name="idle", source="item.idle_days", log1p=True),
)

_FIT = FitConfig(epochs=3, batch_size=64, learning_rate=2e-3, last_rate=0.05, patience=2)
"""Longer training, wider embeddings and n-grams of texts teach rankers their examples by heart."""

ONLINE_RETAIL = Recipe(
    name="online_retail",
    surface="online-retail",
    channels=_CHANNELS,
    tasks=(Task(name="purchase", target_only=True), Task(name="basket", actions=("purchase",))),
    features=FeatureRecipe(
        two_tower=(
            *_TEXT,
            *_HISTORY,
            Category(name="country", source="user.country", vocabulary=()),
            ItemId(name="item_row"),
        ),
        ranking=(
            *(feature for feature in _TEXT if isinstance(feature, Tokens)),
            *_HISTORY,
            Category(name="country", source="user.country", vocabulary=()),
            Number(name="item_price", source="item.price_gbp", log1p=True),
            *_CROSS,
        ),
    ),
    two_tower=TwoTowerTraining(fit=FitConfig(epochs=3, batch_size=1024, learning_rate=4e-3, patience=2)),
    pre_ranker=RankerRecipe(
        model=ThreeTowerConfig(width=16, dropout=0.2, tasks=("purchase", "basket")),
        training=RankingTraining(fit=_FIT),
        candidates=500,
    ),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(width=16, dropout=0.2, members=3, tasks=("purchase", "basket")),
        training=RankingTraining(fit=_FIT),
        candidates=200,
    ),
    gate=GateRules(mode="before", item_id_pattern=r"\d{5}[a-z]{0,2}", target_rate=0.7),
    gate_model=GateTraining(label="page", searches=4000, depths=(100,)),
    item_graph=ItemGraph(takes=200, half_life_days=180),
    attributes=("title", "price_gbp"),
    history_limit=1000,
    start_at_rate=True,
    train_again=True,
    refresh_days=2.0,
    search=SearchSpace(
        settings=(
            Searched(path="two_tower.fit.learning_rate", low=1e-3, high=1e-2, log=True),
            Searched(path="two_tower.fit.batch_size", choices=("256", "512", "1024", "2048")),
            Searched(path="two_tower.model.dropout", low=0.0, high=0.3),
            Searched(path="two_tower.model.temperature", low=0.03, high=0.2, log=True),
            Searched(path="two_tower.negatives", low=256, high=2048, log=True, integer=True),
            Searched(path="two_tower.negative_power", choices=("0.0", "0.5", "0.75")),
        )
    ),
)
"""About 19 to 29 minutes on two cores that other work shares."""
