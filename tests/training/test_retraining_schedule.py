"""Schedules: what is due when, what is good enough, and what is refused."""

from dataclasses import replace
from math import nan

import pytest

from shards.features import FeatureSpec
from shards.json_codec import from_json
from tests.training.model_batches import model_inputs
from training.datasets.statistics import DAY_MS
from training.glmix_training import Figures, Retrained, TrainedGLMix
from training.models.glmix import GLMix, GLMixConfig
from training.retraining_schedule import HOUR_MS, Fitted, QualityRules, Schedule, due

SCHEDULE = Schedule(recipe="movielens_glmix")
LIVE = Figures(auc=0.70, gauc=0.65, log_loss=0.60)


@pytest.mark.parametrize(
    ("random_days", "fixed_days", "expected"),
    [
        (0.5, 3.0, 0.5),
        (1.0, 3.0, "random effects"),
        (2.0, 6.9, "random effects"),
        (0.1, 7.0, "all effects"),
        (0.2, 6.5, 0.5),
        (1.0, None, "all effects"),
    ],
)
def test_random_effects_are_due_daily_and_all_of_them_weekly(
    random_days: float, fixed_days: float | None, expected: str | float
) -> None:
    now_ms = 100 * DAY_MS
    fixed_ms = None if fixed_days is None else now_ms - round(fixed_days * DAY_MS)
    found = due(SCHEDULE, Fitted(random_ms=now_ms - round(random_days * DAY_MS), fixed_ms=fixed_ms), now_ms)
    assert found == (expected if isinstance(expected, str) else now_ms + round(expected * DAY_MS))


def worse(fresh: Figures, live: Figures = LIVE, error: float = 0.001) -> list[str]:
    """Return what is worse than it may be by rules that tolerate a hundredth."""
    trained = TrainedGLMix(
        model=GLMix(GLMixConfig(user="gender", item="item_id"), model_inputs()),
        spec=FeatureSpec(features=()),
        task="like",
        settings=(),
    )
    half = Figures(auc=error, gauc=error, log_loss=error)
    found = Retrained(trained=trained, live=live, fresh=fresh, error=half, labels=500, judged=100)
    compared = QualityRules(most_log_loss_rise=0.01, most_auc_drop=0.01).compared(found, "first")
    assert (compared.live_version, compared.queries) == ("first", 100)
    return [measure.name for measure in compared.worse]


def test_what_is_worse_than_it_may_be_is_named_unless_chance_explains_it() -> None:
    assert worse(LIVE) == []
    assert worse(replace(LIVE, auc=0.695, log_loss=0.605)) == []
    assert worse(replace(LIVE, auc=0.68)) == ["auc"]
    assert worse(replace(LIVE, auc=0.68, log_loss=0.62)) == ["log_loss", "auc"]
    assert worse(replace(LIVE, auc=0.68, log_loss=0.62), error=0.03) == []
    one_kind = replace(LIVE, auc=nan)
    assert worse(replace(one_kind, log_loss=0.62), one_kind) == ["log_loss"]


def test_schedules_are_read_and_wrong_ones_name_the_field() -> None:
    written = {"recipe": "r", "random_effects": {"every_hours": 6}, "labels": {"infer_early": False}}
    found = from_json(Schedule, written)
    assert found.every_ms == 6 * HOUR_MS
    assert found.settings() == ("glmix.labels.window_days=14", "glmix.labels.negative=()")
    for wrong, problem in (
        ({"fixed_effect": {"every_days": 0}}, "fixed_effect.every_days must be above 0"),
        ({"quality": {"held_out": 1.5}}, "quality.held_out must be a share"),
        ({"quality": {"most_auc_drop": -1}}, "must not be negative"),
        ({"random": {}}, "random"),
        ({"random_effects": {"every_hours": "daily"}}, "every_hours"),
    ):
        with pytest.raises(ValueError, match=problem):
            from_json(Schedule, {"recipe": "r", **wrong})
