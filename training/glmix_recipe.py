"""How a recipe's GLMix is made: its labels, its fit and its place in the cascade."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shards.cross_kinds import CrossKind, ItemNumber
from shards.feature_kinds import HistoryKind, Ngrams, Tokens
from shards.features import Feature
from training.event_labels import LabelRule
from training.glmix import GLMixFit
from training.models.glmix import GLMixConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GLMixRecipe:
    """A GLMix as the ranker of a release."""

    labels: LabelRule
    model: GLMixConfig = field(default_factory=GLMixConfig)
    fit: GLMixFit = field(default_factory=GLMixFit)
    task: str = "like"
    """What its probability is of."""
    candidates: int = 200
    """Candidates that the stage takes in."""
    budget_ms: int = 200


def check_features(features: Sequence[Feature]) -> None:
    """Raise ValueError for a feature that a GLMix cannot read: users have effects in place of histories."""
    for feature in features:
        if isinstance(feature, CrossKind) and not isinstance(feature, ItemNumber):
            raise ValueError(f"{feature.name!r}: cross features of a glmix are numbers of items")
        if isinstance(feature, HistoryKind | Tokens | Ngrams):
            raise ValueError(f"{feature.name!r}: a glmix reads no histories and no texts")
