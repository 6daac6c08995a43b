"""A small recipe for the made-up shop: every kind of channel, both rankers, a gate, seconds to train."""

from collections.abc import Mapping

from shards.candidates import Candidates
from shards.cross_kinds import ChannelColumn, HistoryCount, QueryOverlap, ReciprocalRank
from shards.feature_kinds import HistoryAges, HistoryItems, ItemId, Ngrams, Tokens
from shards.release import GateRules
from shards.search_context import SearchContext
from training.channel_recipe import ChannelRecipe
from training.gate import GateTraining
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.models.three_tower import ThreeTowerConfig
from training.ranking import RankingTraining
from training.recipe import FeatureRecipe, RankerRecipe, Recipe
from training.tasks import Task
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

CHANNELS = (
    ChannelRecipe(name="lexical", source="lexical", k=20),
    ChannelRecipe(name="embedding", source="two_tower", k=20, gated=True),
    ChannelRecipe(name="memory", source="query_memory", k=20),
    ChannelRecipe(name="word_memory", source="token_memory", k=20),
    ChannelRecipe(name="title_popular", source="title_popularity", k=20),
    ChannelRecipe(name="neighbours", source="item_cf", k=20),
    ChannelRecipe(name="own", source="own", k=20),
    ChannelRecipe(name="popular", source="popular", k=20),
)
TEXT = (
    Tokens(name="query_tokens", source="query", max_len=4),
    Tokens(name="title_tokens", source="item.title", max_len=4),
    HistoryItems(name="history_items", max_len=10),
    HistoryAges(name="history_ages", max_len=10, boundaries_days=(7.0,)),
    ItemId(name="item_row"),
)
FIT = FitConfig(epochs=4, batch_size=32, learning_rate=0.01)
STAGE = RankingTraining(fit=FIT, sampled=20)
TASKS = ("purchase", "soon")
RECIPE = Recipe(
    name="shop",
    surface="shop",
    channels=CHANNELS,
    tasks=(Task(name="purchase", target_only=True), Task(name="soon", window_s=86_400)),
    features=FeatureRecipe(
        two_tower=(*TEXT, Ngrams(name="ngrams", source="query", buckets=64, max_len=16)),
        ranking=(
            *TEXT,
            *(ReciprocalRank(name=f"{c.name}_rank", column=f"{c.name}.rank") for c in CHANNELS),
            ChannelColumn(name="lexical_score", column="lexical.score"),
            HistoryCount(name="own_count"),
            QueryOverlap(name="overlap", source="item.title"),
        ),
        vocab_size=100,
    ),
    two_tower=TwoTowerTraining(fit=FIT, negatives=16),
    pre_ranker=RankerRecipe(
        model=ThreeTowerConfig(width=8, hidden=16, tasks=TASKS), training=STAGE, candidates=30
    ),
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(width=8, hidden=16, experts=2, expert_width=8, tasks=TASKS),
        training=STAGE,
        candidates=30,
    ),
    gate=GateRules(mode="before", block=("mug",), target_rate=0.5),
    gate_model=GateTraining(depths=(1, 5), fit=FIT),
    ranking_days=30,
    merged=40,
)


def gate(context: SearchContext, _retrieved: Mapping[str, Candidates]) -> bool:
    return context.query != "mug"
