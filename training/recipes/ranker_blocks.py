"""Published rankers, each as one block changed in a recipe that has rankers; what differs stands here.

`make bench-ranking` compares the same blocks on equal candidates, `make bench-ranker-latency` times them.
"""

from dataclasses import replace
from typing import Any

from shards.feature_kinds import HistoryAges, HistoryCategories, HistoryItems
from shards.features import Feature
from training.recipe import Recipe
from training.recipes.completejourney import COMPLETEJOURNEY
from training.recipes.movielens import MOVIELENS

_LONG = 1_000
"""Events of a household that a search goes through."""
_LAST = 20


def _with_block(base: Recipe, name: str, *, more: tuple[Feature, ...] = (), **changes: Any) -> Recipe:
    """Return a recipe of this name with a single, other ranker, which may read more features."""
    assert base.ranker is not None
    return replace(
        base,
        name=name,
        surface=name.replace("_", "-"),
        dataset=base.dataset_name,
        ranker=replace(base.ranker, model=replace(base.ranker.model, members=1, **changes)),
        features=replace(base.features, ranking=(*base.features.ranking, *more)),
    )


def _with_long_history(base: Recipe) -> Recipe:
    features = tuple(
        replace(feature, max_len=_LONG) if isinstance(feature, HistoryItems | HistoryAges) else feature
        for feature in base.features.ranking
    )
    return replace(base, features=replace(base.features, ranking=features), history_limit=_LONG)


GROCER_DCN = _with_block(COMPLETEJOURNEY, "grocer_dcn", cross_layers=2)
GROCER_PPNET = _with_block(COMPLETEJOURNEY, "grocer_ppnet", user_gates=True)
GROCER_FIBINET = _with_block(COMPLETEJOURNEY, "grocer_fibinet", field_crosses="both")
GROCER_DIN = _with_block(COMPLETEJOURNEY, "grocer_din", history="activation")
GROCER_SIM = _with_block(
    _with_long_history(COMPLETEJOURNEY),
    "grocer_sim",
    history="search",
    found=_LAST,
    more=(
        HistoryCategories(name="history_categories", source="item.category", vocabulary=(), max_len=_LONG),
    ),
)
MOVIELENS_LAST = _with_block(
    MOVIELENS,
    "movielens_last",
    history="mean",
    more=(
        HistoryItems(name="last_liked", max_len=_LAST, actions=("like",)),
        HistoryItems(name="last_watched", max_len=_LAST, actions=("watch",)),
    ),
)
