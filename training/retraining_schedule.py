"""When the effects of a released GLMix are fitted anew, from which labels, and when they are good enough.

Decisions only: time is an argument, and files are read in `deploy`.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from shards.release_quality import Measure, ReleaseQuality
from training.datasets.statistics import DAY_MS
from training.glmix_training import Retrained

HOUR_MS = 3_600_000

Kind = Literal["random effects", "all effects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEffects:
    """How often those of users and items are fitted."""

    every_hours: float = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedEffect:
    """How often the one of all is fitted, and the others with it."""

    every_days: float = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelWindow:
    """When a label is known, in place of what the recipe says."""

    window_days: float = 14.0
    infer_early: bool = True
    """Whether the recipe's negative actions tell it before its window closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """What the newest labels, held out of training, must say of new effects beside the live ones.

    Effects are worse where a figure loses more than is tolerated and chance does not explain it.
    """

    held_out: float = 0.2
    """Last share of the labels since the live version."""
    least_labels: int = 200
    """So many labels must have come since then; with fewer nothing is retrained yet."""
    most_log_loss_rise: float = 0.005
    """In nats."""
    most_auc_drop: float = 0.005

    def compared(self, retrained: Retrained, live_version: str) -> ReleaseQuality:
        """Return how the new effects did beside the live ones, for the release to keep.

        A figure that labels of one kind do not have is left out.
        """
        live, fresh, error = retrained.live, retrained.fresh, retrained.error
        figures = {
            "log_loss": (live.log_loss, fresh.log_loss, live.log_loss - fresh.log_loss, error.log_loss),
            "auc": (live.auc, fresh.auc, fresh.auc - live.auc, error.auc),
        }
        tolerated = {"log_loss": self.most_log_loss_rise, "auc": self.most_auc_drop}
        measures = tuple(
            Measure(name=name, live=was, candidate=now, gain=gain, error=half, tolerated=tolerated[name])
            for name, (was, now, gain, half) in figures.items()
            if isfinite(gain) and isfinite(half)
        )
        return ReleaseQuality(live_version=live_version, queries=retrained.judged, measures=measures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What `headrace retrain` is driven by."""

    recipe: str
    dataset: str = ""
    """A data set's name or a folder of Parquet tables; empty for the recipe's."""
    deploy: bool = False
    """Whether the workspace's cluster is made to answer with what was released."""
    check_every_s: float = 60.0
    """How often `--watch` looks whether something is due."""
    random_effects: RandomEffects = field(default_factory=RandomEffects)
    fixed_effect: FixedEffect = field(default_factory=FixedEffect)
    labels: LabelWindow = field(default_factory=LabelWindow)
    quality: QualityRules = field(default_factory=QualityRules)

    def __post_init__(self) -> None:
        positive = {
            "random_effects.every_hours": self.random_effects.every_hours,
            "fixed_effect.every_days": self.fixed_effect.every_days,
            "labels.window_days": self.labels.window_days,
            "check_every_s": self.check_every_s,
            "quality.least_labels": self.quality.least_labels,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value:g}")
        if not 0 < self.quality.held_out < 1:
            raise ValueError(
                f"quality.held_out must be a share between 0 and 1, not {self.quality.held_out:g}"
            )
        if self.quality.most_log_loss_rise < 0 or self.quality.most_auc_drop < 0:
            raise ValueError("quality.most_log_loss_rise and quality.most_auc_drop must not be negative")

    @property
    def every_ms(self) -> int:
        """Return how often something is due."""
        return round(min(self.random_effects.every_hours * HOUR_MS, self.fixed_effect.every_days * DAY_MS))

    def settings(self) -> tuple[str, ...]:
        """Return what the schedule sets in place of the recipe's own settings."""
        waits = () if self.labels.infer_early else ("glmix.labels.negative=()",)
        return (f"glmix.labels.window_days={self.labels.window_days:g}", *waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Until which moments the effects of a release were fitted; None: unknown."""

    random_ms: int
    fixed_ms: int | None


def due(schedule: Schedule, fitted: Fitted, now_ms: int) -> Kind | int:
    """Return what is due at a moment, or the moment when something will be."""
    random_ms = fitted.random_ms + round(schedule.random_effects.every_hours * HOUR_MS)
    if fitted.fixed_ms is None:
        return "all effects"
    fixed_ms = fitted.fixed_ms + round(schedule.fixed_effect.every_days * DAY_MS)
    if now_ms >= fixed_ms:
        return "all effects"
    return "random effects" if now_ms >= random_ms else min(random_ms, fixed_ms)


def verdict(retrained: Retrained) -> str:
    """Return in words how the new effects compare with the live ones."""
    live, fresh = retrained.live, retrained.fresh
    return (
        f"on the newest {retrained.judged} of {retrained.labels} new labels log loss {fresh.log_loss:.4f} "
        f"(live {live.log_loss:.4f}), AUC {fresh.auc:.4f} (live {live.auc:.4f})"
    )
