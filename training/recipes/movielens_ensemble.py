"""Facebook's embedding-based retrieval over the searches of MovieLens-100K: an easy and a hard model as one.

The query tower reads words, character 3-grams, the user's region and cluster; the film tower words, 3-grams,
genres, the region that takes a film most of all that it takes, and its cluster. Nobody here has friends: what
stands for a social cluster is a group of users and films that go together in what was watched. Both models
are trained by a hinge on the cosine, one against easy negatives, one also against films that it ranked
from 21 to 200 itself: the catalogue is too small for 101 to 500.
"""

from dataclasses import replace

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
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.ensembles import EnsembleTraining, Member
from training.hard_negatives import HardNegatives
from training.item_graph import ItemGraph
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

_BUCKETS = 8_192

PLACE = (
    Category(name="region", source="user.region", vocabulary=()),
    Category(name="liked_in", source="item.neighbour_places", vocabulary=()),
)
CLUSTER = (
    HistoryCategory(name="user_cluster", source="item.cluster", vocabulary=(), max_len=40),
    Category(name="film_cluster", source="item.cluster", vocabulary=()),
)

EASY = TwoTowerTraining(
    model=TwoTowerConfig(width=32, temperature=0.1, learned_temperature=False),
    fit=FitConfig(epochs=4, batch_size=256, learning_rate=6e-3, patience=1),
    loss="hinge",
    margin=2.0,
    log_q=False,
    negatives=256,
    counted="hardest",
    per_positive=32,
)
"""A margin of 2 in logits is one of .2 in the cosine."""
HARD = replace(EASY, hard=HardNegatives(per_positive=2, first_rank=21, last_rank=200))

MOVIELENS_ENSEMBLE = Recipe(
    name="movielens_ensemble",
    surface="movielens-ensemble",
    dataset="movielens",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),),
    features=FeatureRecipe(
        two_tower=(
            Tokens(name="query_tokens", source="query", max_len=8),
            Ngrams(name="query_ngrams", source="query", buckets=_BUCKETS, max_len=24),
            HistoryItems(name="history_items", max_len=40),
            HistoryAges(name="history_ages", max_len=40, boundaries_days=(0.01, 1.0, 30.0)),
            Category(name="gender", source="user.gender", vocabulary=()),
            Category(name="occupation", source="user.occupation", vocabulary=()),
            Number(name="age", source="user.age"),
            Tokens(name="title_tokens", source="item.title", max_len=12),
            Tokens(name="genre_tokens", source="item.genres", max_len=8),
            Tokens(name="decade_tokens", source="item.decade", max_len=2),
            Ngrams(name="title_ngrams", source="item.title", buckets=_BUCKETS, max_len=48),
            Categories(name="genres", source="item.genres", vocabulary=(), max_len=6),
            ItemId(name="item_row"),
            *PLACE,
            *CLUSTER,
        ),
        shared=tuple(tuple(feature.name for feature in group) for group in (PLACE, CLUSTER)),
        token_sources=("title", "genres", "decade"),
    ),
    item_graph=ItemGraph(places=1, place="region", clusters=16),
    two_tower=EASY,
    ensemble=EnsembleTraining(members=(Member(training=EASY), Member(training=HARD, weight=1.0))),
    gate=GateRules(mode="always"),
    attributes=("title", "release_year", "genres"),
    history_limit=200,
    ranking_days=45,
    two_tower_queries=20_000,
)
"""A minute of one core."""
