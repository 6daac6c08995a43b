"""Where users of `gowalla_poi` go next, by two towers that know where places are.

The query tower reads where most of a user's newest places lie, the item tower where a place lies: geohash
cells of three sizes, each with one embedding for both towers. That is the location part of Facebook's
embedding-based retrieval and of Etsy's unified embedding.
"""

from shards.feature_kinds import Category, HistoryAges, HistoryCategory, HistoryItems, ItemId
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.datasets.gowalla import CELL_LETTERS
from training.models.two_tower import TwoTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

_EVENTS = 40

LOCATION = tuple(
    (
        HistoryCategory(
            name=f"user_cell_{letters}", source=f"item.cell_{letters}", vocabulary=(), max_len=_EVENTS
        ),
        Category(name=f"place_cell_{letters}", source=f"item.cell_{letters}", vocabulary=()),
    )
    for letters in CELL_LETTERS
)
"""By size of cell: where the user mostly is, and where the place is."""

GOWALLA_TOWERS = Recipe(
    name="gowalla_towers",
    surface="gowalla-towers",
    dataset="gowalla_poi",
    channels=(ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),),
    features=FeatureRecipe(
        two_tower=(
            HistoryItems(name="history_items", max_len=_EVENTS),
            HistoryAges(name="history_ages", max_len=_EVENTS, boundaries_days=(1.0,)),
            ItemId(name="item_row"),
            *(feature for cells in LOCATION for feature in cells),
        ),
        shared=tuple(tuple(feature.name for feature in cells) for cells in LOCATION),
    ),
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(history="mean"),
        fit=FitConfig(epochs=3, batch_size=512, learning_rate=4e-3, patience=3),
        negatives=512,
    ),
    # Nobody types a query: every search is a browse, which rules would keep from embeddings.
    gate=GateRules(mode="always"),
    exclude_actions=("checkin",),
    attributes=("latitude_deg", "longitude_deg"),
    history_limit=2000,
    # A split is a day: the early moment is where the valid one begins.
    ranking_days=1.0,
    ranking_queries=40_000,
    two_tower_queries=30_000,
)
"""Two minutes of one core."""
