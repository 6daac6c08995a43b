"""How well predictions of tasks hold: pure functions of labels, predictions and groups.

Legend: N = examples, K = bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Examples of about one prediction: the mean of what was predicted, and of what happened."""

    predicted: float
    observed: float
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityFigures:
    """Of a task that predicts a probability; NaN where there is one outcome alone."""

    examples: int
    auc: float
    gauc: float
    """AUC within each request."""
    log_loss: float
    ece: float
    """Expected calibration error, over the bins of the curve."""
    predicted: float
    observed: float
    """The mean prediction and the rate that there was: equal where calibrated."""
    curve: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFigures:
    """Of a task that predicts a number."""

    examples: int
    mean_absolute_error: float
    root_mean_square_error: float
    absolute_error_of_mean: float
    """What the mean of the labels, known beforehand, would err by."""
    correlation: float
    predicted: float
    observed: float


def probability_figures(label_N: Floats, probability_N: Floats, group_N: Ints) -> ProbabilityFigures:
    """Return the figures of probabilities of labels 0 or 1, or shares; `group_N` numbers the requests.

    Raises ValueError without an example.
    """
    _check(label_N, probability_N)
    happened_N = label_N > 0.5
    curve = reliability_curve(label_N, probability_N)
    return ProbabilityFigures(
        examples=len(label_N),
        auc=metrics.auc(happened_N, probability_N),
        gauc=metrics.gauc(happened_N, probability_N, group_N),
        log_loss=metrics.log_loss(happened_N, probability_N),
        ece=sum(one.examples * abs(one.predicted - one.observed) for one in curve) / len(label_N),
        predicted=float(probability_N.mean()),
        observed=float(label_N.mean()),
        curve=curve,
    )


def value_figures(label_N: Floats, prediction_N: Floats) -> ValueFigures:
    """Return the figures of predicted numbers; ValueError without an example."""
    _check(label_N, prediction_N)
    error_N = prediction_N - label_N
    varies = label_N.std() > 0 and prediction_N.std() > 0
    return ValueFigures(
        examples=len(label_N),
        mean_absolute_error=float(np.abs(error_N).mean()),
        root_mean_square_error=float(np.sqrt((error_N**2).mean())),
        absolute_error_of_mean=float(np.abs(label_N - label_N.mean()).mean()),
        correlation=float(np.corrcoef(label_N, prediction_N)[0, 1]) if varies else float("nan"),
        predicted=float(prediction_N.mean()),
        observed=float(label_N.mean()),
    )


def reliability_curve(label_N: Floats, probability_N: Floats, *, bins: int = 10) -> tuple[Bin, ...]:
    """Return what happened by what was predicted, in at most K bins of equally many examples."""
    order = np.argsort(probability_N, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return tuple(
        Bin(
            predicted=float(probability_N[part].mean()),
            observed=float(label_N[part].mean()),
            examples=len(part),
        )
        for part in parts
        if len(part)
    )


def _check(label_N: Floats, prediction_N: Floats) -> None:
    if not len(label_N) or label_N.shape != prediction_N.shape:
        raise ValueError("there must be as many labels as predictions, and at least one")
    if not np.isfinite(prediction_N).all():
        raise ValueError("a prediction is not finite")
