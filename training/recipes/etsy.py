"""Etsy's unified embedding over the gift shop of `online_retail`: all that it joins in two towers.

Tokens, n-grams and places have one encoder for both towers: a user is in a country, an item belongs to the
one that takes it most of all that it takes. The item tower alone has a transformer over titles and an encoder
of the graph: the queries that led to an item, and what was bought with it. The query tower has one layer of a
transformer over what the user bought. Scalars are quantiles, vectors are hydrated, and the index is of 4-bit
codes whose best are compared exactly. The queries are proxies made from the bought title, and histories hold
purchases alone.
"""

from shards.ann_index import AnnKnobs
from shards.feature_kinds import (
    Category,
    HistoryAges,
    HistoryItems,
    ItemId,
    ItemRows,
    Ngrams,
    Quantile,
    Tokens,
)
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.item_graph import ItemGraph
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.recipes.hydrated import HYDRATED
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining
from training.weighted_sources import SourceWeights

_AGES_DAYS = (1.0, 7.0, 30.0, 60.0, 120.0, 240.0)
_BUCKETS = 16_384

PLACE = (
    Category(name="country", source="user.country", vocabulary=()),
    Category(name="sold_in", source="item.neighbour_places", vocabulary=()),
)
NEIGHBOURS = (
    Tokens(name="led_by_tokens", source="item.neighbour_queries", max_len=24),
    ItemRows(name="taken_with", source="item.neighbour_items", max_len=10),
)

ETSY = Recipe(
    name="etsy",
    surface="online-retail-etsy",
    dataset="online_retail",
    channels=(
        ChannelRecipe(
            name="embedding",
            source="two_tower",
            k=200,
            # Six numbers go behind a vector of 64: pairs of 70 dimensions. So few items are scanned whole.
            index="IVF16,PQ35x4fs,RFlat",
            ann=AnnKnobs(nprobe=16, k_factor=4.0),
        ),
    ),
    features=FeatureRecipe(
        two_tower=(
            Tokens(name="query_tokens", source="query", max_len=8),
            Ngrams(name="query_ngrams", source="query", buckets=_BUCKETS, max_len=32),
            HistoryItems(name="history_items", max_len=30),
            HistoryAges(name="history_ages", max_len=30, boundaries_days=_AGES_DAYS),
            Tokens(name="title_tokens", source="item.title", max_len=16),
            Ngrams(name="title_ngrams", source="item.title", buckets=_BUCKETS, max_len=64),
            Ngrams(name="code_ngrams", source="item.item_id", buckets=_BUCKETS, max_len=8),
            Quantile(name="price", source="item.price_gbp"),
            ItemId(name="item_row"),
            *PLACE,
            *NEIGHBOURS,
        ),
        shared=(tuple(feature.name for feature in PLACE),),
    ),
    item_graph=ItemGraph(queries=5, items=10, places=1, place="country"),
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(
            history="transformer",
            history_text="title_tokens",
            title="title_tokens",
            neighbours=tuple(feature.name for feature in NEIGHBOURS),
            neighbour_dropout=0.3,
        ),
        fit=FitConfig(epochs=12, batch_size=1024, learning_rate=4e-3, patience=2),
        sources=SourceWeights(warmup_epochs=1, shift_epochs=3),
    ),
    hydration=HYDRATED.hydration,
    gate=GateRules(mode="always"),
    attributes=("title", "price_gbp"),
)
"""Some three seconds of one core for 10,000 queries of an epoch."""
