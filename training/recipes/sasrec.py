"""The next item in Amazon Beauty by a causal transformer: SASRec with sampled softmax and item attributes."""

from shards.feature_kinds import Categories, HistoryItems, ItemId
from shards.release import GateRules
from training.channel_recipe import ChannelRecipe
from training.models.history_transformer import HistoryTransformerConfig
from training.recipe import FeatureRecipe, Recipe
from training.sequences import SequenceTraining
from training.trainer import FitConfig

FEATURES = FeatureRecipe(
    two_tower=(
        HistoryItems(name="history_items", max_len=50),
        ItemId(name="item_row"),
        Categories(name="attributes", source="item.attributes", vocabulary=(), max_len=8),
    ),
)
FIT = FitConfig(
    epochs=10,
    batch_size=256,
    learning_rate=3e-3,
    weight_decay=0.0,
    patience=10,
    warmup_steps=200,
    last_rate=0.05,
)
CHANNELS = (ChannelRecipe(name="embedding", source="two_tower", k=200, quota=200),)
MODEL = HistoryTransformerConfig(width=64, layers=2, heads=2, dropout=0.3)

SASREC = Recipe(
    name="sasrec",
    surface="beauty-sasrec",
    dataset="amazon_beauty",
    channels=CHANNELS,
    features=FEATURES,
    sequences=SequenceTraining(model=MODEL, fit=FIT),
    # Nobody types a query: every search is a browse, which rules would keep from embeddings.
    gate=GateRules(mode="always"),
    attributes=("attributes",),
    # A day is a position: the early moment is the valid item.
    ranking_days=1,
    two_tower_queries=8,
)
"""The early model learns from the train split and stops by the valid one, the late one from both."""
