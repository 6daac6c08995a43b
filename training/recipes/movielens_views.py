"""`movielens_next` with a self-supervised loss: two views of a film, each without a part of what is known."""

from dataclasses import replace

from training.augmentations import SelfSupervised
from training.recipes.movielens_next import MOVIELENS_NEXT

MOVIELENS_VIEWS = replace(
    MOVIELENS_NEXT,
    name="movielens_views",
    surface="movielens-views",
    two_tower=replace(MOVIELENS_NEXT.two_tower, self_supervised=SelfSupervised(weight=0.3)),
)
