"""What customers of the gift shop of `online_retail` take after a search, and what of it they send back.

A cancellation within 14 days stands for a return; half of those that there are come within ten. Whether the
last purchases will come back is not known yet, and inferred. The queries are proxies made from the bought
title.
"""

from shards.cross_kinds import (
    ChannelColumn,
    HistoryCount,
    HistoryRecency,
    HistorySize,
    ItemNumber,
    QueryOverlap,
    ReciprocalRank,
)
from shards.feature_kinds import Category, HistoryAges, HistoryItems, Number, Tokens
from shards.features import Feature
from shards.lexical import LexicalParams
from training.channel_recipe import ChannelRecipe
from training.datasets.retail_returns import RETURN
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe
from training.tasks import Task
from training.trainer import FitConfig

_BOUGHT, _RETURNED = ("purchase",), (RETURN,)
_CHANNELS = (
    ChannelRecipe(name="own", source="own", k=60, quota=40),
    ChannelRecipe(
        name="lexical", source="lexical", k=60, quota=40, lexical=LexicalParams(prior="trending_prior")
    ),
    ChannelRecipe(name="popular", source="popular", k=40, quota=20),
)
_TASKS = (
    Task(name="purchase", actions=_BOUGHT, negatives=0.5),
    Task(name="return", given=_BOUGHT, actions=_RETURNED, window_s=14 * 86_400, unclosed="infer", weight=1.0),
)

_RANKING: tuple[Feature, ...] = (
    HistoryItems(name="history_items", max_len=30, actions=_BOUGHT),
    HistoryAges(
        name="history_ages", max_len=30, actions=_BOUGHT, boundaries_days=(1.0, 7.0, 30.0, 60.0, 120.0)
    ),
    Tokens(name="query_tokens", source="query", max_len=8),
    Tokens(name="title_tokens", source="item.title", max_len=12),
    Category(name="country", source="user.country", vocabulary=()),
    Number(name="item_price", source="item.price_gbp", log1p=True),
    *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in _CHANNELS),
    ChannelColumn(name="lexical_score", column="lexical.score"),
    QueryOverlap(name="token_overlap", source="item.title"),
    HistoryCount(name="own_count", actions=_BOUGHT),
    HistoryRecency(name="own_recency", half_life_days=30, actions=_BOUGHT),
    HistoryCount(name="own_returns", actions=_RETURNED),
    HistorySize(name="bought", of="events", actions=_BOUGHT),
    HistorySize(name="returned", of="events", actions=_RETURNED),
    *(
        HistorySize(name=f"returned_{name}", of="events", actions=_RETURNED, within_days=days)
        for name, days in {"7d": 7.0, "1d": 1.0, "1h": 1 / 24}.items()
    ),
    *(ItemNumber(name=name, source=f"item.{name}", log1p=True) for name in ("popularity", "popularity_30d")),
    ItemNumber(name="price", source="item.price_gbp", log1p=True),
)

RETAIL_RETURNS = Recipe(
    name="retail_returns",
    surface="retail-returns",
    channels=_CHANNELS,
    tasks=_TASKS,
    features=FeatureRecipe(ranking=_RANKING, vocab_size=2000),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(
            width=16,
            sharing="bottom",
            cross_layers=2,
            dropout=0.2,
            members=3,
            tasks=tuple(task.name for task in _TASKS),
        ),
        training=RankingTraining(
            fit=FitConfig(epochs=8, batch_size=64, learning_rate=2e-3, last_rate=0.05),
            binary_weight=1.0,
            calibrate=True,
        ),
        candidates=100,
    ),
    merged=100,
    ranking_days=90.0,
    ranking_queries=8_000,
)
"""Three minutes of one core."""
