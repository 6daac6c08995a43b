"""The next film of MovieLens-100K, its list spread over clusters of films: eBay's personalised retrieval.

What a user rated below 4 stands for what they viewed and did not click: it joins the negatives of the other
users of a batch. The settings of the towers are those of `movielens_next`.
"""

from dataclasses import replace

from training.hard_negatives import HardNegatives
from training.recipes.movielens_next import MOVIELENS_NEXT

VIEWED = HardNegatives(source="actions", actions=("watch",), per_positive=1, from_epoch=1, of_others=True)

EBAY = replace(
    MOVIELENS_NEXT,
    name="ebay",
    surface="movielens-spread",
    channels=(replace(MOVIELENS_NEXT.channels[0], clusters=40, nearest_clusters=4),),
    two_tower=replace(MOVIELENS_NEXT.two_tower, hard=VIEWED),
)
"""Half a minute of one core."""
