"""Items like those that a user lately took in the gift shop of `online_retail` (Avito's item similarity).

What a user buys within eight hours stands for what one user contacts. Items are known by the words of their
titles alone, so that one which nobody has bought yet is found like any other; vectors are kept as int8.
"""

from shards.feature_kinds import Ngrams, Tokens
from training.channel_recipe import ChannelRecipe
from training.item_pairs import ItemPairTraining
from training.models.item_tower import ItemTowerConfig
from training.recipe import FeatureRecipe, Recipe
from training.trainer import FitConfig

FEATURES = FeatureRecipe(
    two_tower=(
        Tokens(name="title_tokens", source="item.title", max_len=16),
        Ngrams(name="title_ngrams", source="item.title", buckets=8_192, max_len=48),
    ),
)
TRAINING = ItemPairTraining(
    model=ItemTowerConfig(output="tanh", temperature=1.0),
    fit=FitConfig(epochs=1, batch_size=256, learning_rate=2e-3, weight_decay=0.0),
    negatives=4000,
    hardest=100,
)

AVITO = Recipe(
    name="avito",
    surface="online-retail-similar",
    dataset="online_retail",
    channels=(ChannelRecipe(name="seen", source="item_vectors", k=200, quota=200, newest=20),),
    features=FEATURES,
    item_pairs=TRAINING,
    exclude_actions=("purchase",),
    attributes=("title",),
    history_limit=400,
)
"""About three minutes on two cores."""
