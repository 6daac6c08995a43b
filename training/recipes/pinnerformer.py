"""PinnerFormer's objective in Amazon Beauty: each place of a history predicts one of the next few items.

The data has one action, no surfaces, no durations and no times, so an event is its item alone. Users are
asked for by the vectors that `headrace users embed` has stored, and by the query tower where there are none.
"""

from dataclasses import replace

from shards.release import GateRules
from training.recipe import Recipe
from training.recipes.sasrec import CHANNELS, FEATURES, FIT, MODEL
from training.sequences import SequenceTraining

PINNERFORMER = Recipe(
    name="pinnerformer",
    surface="beauty-pinnerformer",
    dataset="amazon_beauty",
    channels=tuple(replace(channel, stored_vectors=True) for channel in CHANNELS),
    features=FEATURES,
    sequences=SequenceTraining(model=MODEL, fit=FIT, objective="all_action", horizon=3, equal_users=True),
    gate=GateRules(mode="always"),
    attributes=("attributes",),
    ranking_days=1,
    two_tower_queries=8,
)
