"""What users of MovieLens-100K like next, by neural collaborative filtering, computed before anybody asks.

A rating of 4 or 5 stands for having watched a course long enough. The data are leave-one-out: positions are
in place of times.
"""

from training.channel_recipe import ChannelRecipe
from training.neural_cf import NeuralCFTraining
from training.recipe import Recipe
from training.trainer import FitConfig

FIT = FitConfig(epochs=12, batch_size=512, learning_rate=2e-3, weight_decay=1e-2)
"""Chosen on the valid split."""

NEURAL_CF = Recipe(
    name="neural_cf",
    surface="movielens-likes",
    dataset="movielens_likes",
    channels=(
        ChannelRecipe(
            name="neural_cf",
            source="neural_cf",
            actions=("like",),
            top=300,
            neural_cf=NeuralCFTraining(fit=FIT),
        ),
        ChannelRecipe(name="popular", source="popular", popularity="popularity", weight=0.1),
    ),
    exclude_actions=("like", "watch"),
    attributes=("title", "release_year", "genres"),
    history_limit=1000,
)
"""Two minutes on one core. Who is new since the table was made is told what is popular."""
