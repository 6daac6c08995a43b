"""Items that nobody has searched for yet in `online_retail`: two towers with a self-supervised loss.

Two views of an item, each without a part of what is known of it, must tell it from other items, so that
items without training queries have learned vectors, too. The queries are proxies made from the bought title.
"""

from dataclasses import replace

from training.augmentations import SelfSupervised
from training.models.two_tower import TwoTowerConfig
from training.recipes.online_retail import ONLINE_RETAIL
from training.trainer import FitConfig
from training.two_tower_training import TwoTowerTraining

RETAIL_VIEWS = replace(
    ONLINE_RETAIL.embedding_alone(),
    name="retail_views",
    surface="online-retail-views",
    dataset="online_retail",
    two_tower=TwoTowerTraining(
        model=TwoTowerConfig(width=32),
        fit=FitConfig(epochs=6, batch_size=256, learning_rate=4e-3, patience=2),
        negatives=256,
        self_supervised=SelfSupervised(weight=1.0),
    ),
    two_tower_queries=25_000,
)
"""Five minutes of one core."""
