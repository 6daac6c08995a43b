"""Trains a GLMix on labels of events: from nothing, or on from where a released one is.

Legend: E = examples, N = items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from shards.bundle import Bundle
from shards.errors import FieldViolation, InvalidInput
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from training.evaluation.metrics import auc, gauc, log_loss
from training.event_labels import Labels, labels_at
from training.features import FittingData, fit_spec, model_inputs
from training.glmix import (
    PARTS,
    RANDOM,
    Coefficients,
    Examples,
    GLMixFit,
    Part,
    coefficients_of,
    fit_glmix,
    fit_part,
    logits,
    put,
)
from training.glmix_examples import contexts_of, encoded
from training.glmix_recipe import GLMixRecipe
from training.models.glmix import GLMix
from training.parameters import restored_glmix
from training.run import Run
from training.snapshot import Snapshot
from training.trainer import Advanced, PhaseStarted

_BOTH = 2
_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How well probabilities foretell labels: over all examples, within users (GAUC), and in nats."""

    auc: float
    gauc: float
    log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedGLMix:
    """A GLMix with what encodes its features and what it was fitted with."""

    model: GLMix
    spec: FeatureSpec
    task: str
    settings: tuple[str, ...]
    """The strengths that it was fitted with, as settings of the recipe: what goes on from it keeps them."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """On labels held out; none where nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """A GLMix that went on, and how it and the one before foretell the newest labels, which neither knew."""

    trained: TrainedGLMix
    live: Figures
    fresh: Figures
    error: Figures
    """Half the 95 % interval of each difference."""
    labels: int
    """Labels that became known since the one before was fitted."""
    judged: int
    """How many of them, the newest, both are judged by."""


def figures_of(coefficients: Coefficients, examples: Examples, parts: tuple[Part, ...] = PARTS) -> Figures:
    """Return how well these effects foretell the examples' labels."""
    logit_E = logits(coefficients, examples, parts)
    label_E = examples.label_E.numpy() > 0
    return Figures(
        auc=auc(label_E, logit_E.numpy()),
        gauc=gauc(label_E, logit_E.numpy(), examples.user_row_E.numpy()),
        log_loss=log_loss(label_E, torch.sigmoid(logit_E).numpy()),
    )


def train_glmix(run: Run, known: Snapshot) -> TrainedGLMix:
    """Fit the recipe's GLMix to every label that is known, with strengths that suit the newest of them best.

    Raises InvalidInput where there are no labels of both kinds, ValueError for features without the ids that
    effects are of.
    """
    glmix = _glmix(run)
    labels = labels_at(run.dataset.events, glmix.labels, known.now_ms)
    if len(np.unique(labels.label_L)) < _BOTH:
        raise InvalidInput(FieldViolation("labels", "there are none of both kinds to learn from"))
    index = ForwardIndex(known.items)
    columns = index.columns(known.items.column_names)
    contexts = contexts_of(run.dataset, labels)
    spec = fit_spec(run.recipe.features.ranking, FittingData(contexts=contexts, item_columns=columns))
    model = GLMix(glmix.model, model_inputs(spec, None, len(index)))
    examples = _encoded(run, model, spec, known, labels)
    torch.set_num_threads(run.threads)
    cut = int(len(examples) * (1 - run.recipe.holdout))
    train, held_out = examples[:cut], examples[cut:]
    fit, start = glmix.fit, coefficients_of(model)
    run.observe(PhaseStarted(phase="fitting effects"))
    if fit.choose:
        fit = chosen(start, train, held_out, fit)
    early, _ = fit_glmix(start, train, fit, on_step=lambda: run.observe(Advanced()))
    figures = {f"glmix {name}": value for name, value in _named(figures_of(early, held_out)).items()}
    fitted, _ = fit_glmix(early, examples, fit, on_step=lambda: run.observe(Advanced()))
    put(model, fitted)
    return TrainedGLMix(
        model=model.eval(), spec=spec, task=glmix.task, settings=_settings(fit), figures=figures
    )


def retrain_glmix(
    run: Run, source: Bundle, known: Snapshot, *, fixed: bool, held_out: float, least_labels: int
) -> Retrained | int:
    """Fit the random effects, or with `fixed` every effect, beginning with those of a bundle (warm start).

    The last share `held_out` of the labels that it does not know judges both and trains neither. Where there
    are fewer than `least_labels` of them nothing is fitted, and how many there are is returned. Raises what
    `restored_glmix` raises, ValueError for labels of items that are not in the data, and FloatingPointError
    for effects that are not finite.
    """
    glmix, spec = _glmix(run), source.spec
    index = ForwardIndex(known.items)
    model = restored_glmix(glmix.model, source, index.item_ids)
    assert spec is not None
    assert source.manifest.training_range is not None
    labels = labels_at(run.dataset.events, glmix.labels, known.now_ms)
    new = len(labels.since(source.manifest.training_range.end_ms))
    judged = int(new * held_out)
    if new < least_labels or not judged:
        return new
    examples = _encoded(run, model, spec, known, labels)
    torch.set_num_threads(run.threads)
    train, newest = examples[: len(examples) - judged], examples[len(examples) - judged :]
    live = coefficients_of(model)
    run.observe(PhaseStarted(phase="fitting effects"))
    parts = PARTS if fixed else RANDOM
    fitted, _ = fit_glmix(live, train, glmix.fit, parts=parts, on_step=lambda: run.observe(Advanced()))
    put(model, fitted)
    fresh = figures_of(fitted, newest)
    if not np.isfinite(fresh.log_loss):
        raise FloatingPointError(f"the log loss of the new effects is {fresh.log_loss}")
    return Retrained(
        trained=TrainedGLMix(
            model=model,
            spec=spec,
            task=glmix.task,
            settings=source.manifest.settings,
            figures={f"glmix {name}": value for name, value in _named(fresh).items()},
        ),
        live=figures_of(live, newest),
        fresh=fresh,
        error=_errors(live, fitted, newest),
        labels=new,
        judged=judged,
    )


def chosen(start: Coefficients, train: Examples, held_out: Examples, fit: GLMixFit) -> GLMixFit:
    """Return the fit with each effect's strength, in turn, by which the held-out labels are foretold best."""
    fitted = start
    for part in PARTS:
        tried = {}
        for l2 in fit.tried:
            candidate, _ = fit_part(fitted, train, fit.with_l2(part, l2), part)
            tried[l2] = figures_of(candidate, held_out).log_loss, candidate
        best = min(tried, key=lambda l2: tried[l2][0])
        fit, fitted = fit.with_l2(part, best), tried[best][1]
    return fit


def _errors(live: Coefficients, fresh: Coefficients, newest: Examples) -> Figures:
    """Return half the 95 % interval of each difference, by a jackknife over groups of labels."""
    group_E = torch.arange(len(newest)) % _GROUPS
    without = [newest[group_E != group] for group in range(_GROUPS)]
    gain_GF = np.array([_differences(figures_of(live, e), figures_of(fresh, e)) for e in without])
    spread_F = np.sum((gain_GF - gain_GF.mean(axis=0)) ** 2, axis=0)
    auc_error, gauc_error, loss_error = 1.96 * np.sqrt((_GROUPS - 1) / _GROUPS * spread_F)
    return Figures(auc=float(auc_error), gauc=float(gauc_error), log_loss=float(loss_error))


def _differences(live: Figures, fresh: Figures) -> tuple[float, float, float]:
    return fresh.auc - live.auc, fresh.gauc - live.gauc, fresh.log_loss - live.log_loss


def _glmix(run: Run) -> GLMixRecipe:
    if run.recipe.glmix is None:
        raise InvalidInput(FieldViolation("recipe", f"{run.recipe.name!r} has no glmix"))
    return run.recipe.glmix


def _encoded(run: Run, model: GLMix, spec: FeatureSpec, known: Snapshot, labels: Labels) -> Examples:
    run.observe(PhaseStarted(phase="encoding labels"))
    every_days = run.recipe.refresh_days or 1.0
    return encoded(model, spec, known.items, run.dataset, labels, every_days)


def _settings(fit: GLMixFit) -> tuple[str, ...]:
    strengths = tuple(f"glmix.fit.{part}_l2={fit.l2(part):g}" for part in PARTS)
    return (*strengths, "glmix.fit.choose=false")


def _named(figures: Figures) -> dict[str, float]:
    return {"AUC": figures.auc, "GAUC": figures.gauc, "log loss": figures.log_loss}
