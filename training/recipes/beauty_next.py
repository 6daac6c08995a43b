"""The next item in Amazon Beauty by two channels: a causal transformer, and what users took after each item.

The transformer generalises, the table remembers; their merge is fitted on the valid items. Settings of the
table were chosen on the valid items of the first 3,000 users, never on the test.
"""

from dataclasses import replace

from training.channel_recipe import ChannelRecipe
from training.recipes.sasrec import CHANNELS, SASREC

BEAUTY_NEXT = replace(
    SASREC,
    name="beauty_next",
    surface="beauty-next",
    channels=(
        *CHANNELS,
        ChannelRecipe(
            name="successors",
            source="successors",
            gap_decay=0.8,
            shrink=1.0,
            # A step of a history is a day: each one back counts for 0.6 of the one after it.
            interest_half_life_days=1.36,
        ),
    ),
    fit_merge=True,
    merged=200,
)
