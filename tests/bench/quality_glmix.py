"""A part of `make bench-quality`: what random effects add to a fixed one, and how often to fit them anew.

MovieLens-100K, likes (four stars and more) among the films that users rated. A GLMix learns from all before
the test and lives through the test day by day: every rating is foretold by the effects as they were fitted
last, then it is learned from. Fitting has no chance in it: each seed draws four users in five.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of_each
from training.datasets.splits import known_until_ms
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset
from training.evaluation.metrics import auc, gauc, log_loss
from training.event_labels import labels_at
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
)
from training.glmix_examples import encoded
from training.glmix_training import train_glmix
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run

_ALL = 1 << 62
_SHARE = 0.8
_QUICK_DAYS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often effects are fitted anew; None: never. `waits`: negative labels count once they are closed."""

    random_days: float | None = None
    fixed_days: float | None = None
    waits: bool = False


RHYTHMS = {
    "never": Rhythm(),
    "weekly": Rhythm(random_days=7),
    "daily": Rhythm(random_days=1),
    "daily, fixed effect weekly": Rhythm(random_days=1, fixed_days=7),
    "every 6 hours": Rhythm(random_days=0.25),
    "daily, no label inferred": Rhythm(random_days=1, waits=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Labels of the whole log, the effects fitted to those before the test, and when each is known."""

    examples: Examples
    opened_ms: NDArray[np.int64]
    closed_ms: NDArray[np.int64]
    """When a label is known that is not inferred from dislike."""
    start: Coefficients
    fit: GLMixFit
    start_ms: int
    until_ms: int

    def lived(self, rhythm: Rhythm) -> torch.Tensor:
        """Return the logits of the test's labels, foretold by what was fitted last before each."""
        known_E = self.closed_ms if rhythm.waits else self.opened_ms
        now, parts = self.start, []
        step_ms = round((rhythm.random_days or 1.0) * DAY_MS)
        fixed_ms = self.start_ms
        for begin_ms in range(self.start_ms, self.until_ms, step_ms):
            if begin_ms > self.start_ms and rhythm.random_days is not None:
                every = rhythm.fixed_days is not None and begin_ms >= fixed_ms + rhythm.fixed_days * DAY_MS
                fixed_ms = begin_ms if every else fixed_ms
                now = self._fitted(now, known_E < begin_ms, PARTS if every else RANDOM)
            inside_E = (self.opened_ms >= begin_ms) & (
                self.opened_ms < min(begin_ms + step_ms, self.until_ms)
            )
            parts.append(logits(now, self.examples[torch.from_numpy(inside_E)]))
        return torch.cat(parts)

    def _fitted(self, now: Coefficients, known_E: NDArray[np.bool_], parts: tuple[Part, ...]) -> Coefficients:
        once = replace(self.fit, rounds=1)
        return fit_glmix(now, self.examples[torch.from_numpy(known_E)], once, parts=parts)[0]

    @property
    def before(self) -> Examples:
        """Return what was known when the test began."""
        return self.examples[torch.from_numpy(self.opened_ms < self.start_ms)]

    @property
    def tested(self) -> Examples:
        """Return the test's labels."""
        inside_E = (self.opened_ms >= self.start_ms) & (self.opened_ms < self.until_ms)
        return self.examples[torch.from_numpy(inside_E)]


def glmix(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return how well each rhythm foretells likes, beside the fixed effect alone."""
    recipe, dataset = RECIPES["movielens_glmix"], run.load("movielens")
    found = [figures_of(replay_of(recipe, dataset, seed, quick=run.quick)) for seed in range(run.seeds)]

    def reached(name: str) -> float:
        return mean_of([each[name] for each in found])

    pairs = (
        ("fixed effect alone", "daily"),
        ("never", "daily"),
        ("weekly", "daily"),
        ("never, unweighted", "never"),
    )
    checks = [
        at_least(f"glmix, AUC, {better} against {worse}", reached(f"{better}, AUC"), reached(f"{worse}, AUC"))
        for worse, better in pairs[:3]
    ]
    rises = {
        f"{better} over {worse}, {metric}": float(
            np.mean([e[f"{better}, {metric}"] - e[f"{worse}, {metric}"] for e in found])
        )
        for worse, better in pairs
        for metric in ("AUC", "GAUC", "log loss")
    }
    return {"seeds": run.seeds, **spread_of_each(found), **rises}, checks


def replay_of(recipe: Recipe, dataset: Dataset, seed: int, *, quick: bool = False) -> Replay:
    """Return what a GLMix of four users in five lives through."""
    dataset = _some(dataset, seed)
    start_ms = known_until_ms(dataset)
    run = Run(recipe=recipe, dataset=dataset, seed=seed, gate=lambda *_: True)
    known = run.snapshot(start_ms)
    trained = train_glmix(run, known)
    fitted = with_overrides(recipe, trained.settings).glmix
    assert fitted is not None
    labels = labels_at(dataset.events, fitted.labels, _ALL)
    window_ms = round(fitted.labels.window_days * DAY_MS)
    opened = labels.opened_ms_L
    return Replay(
        examples=encoded(trained.model, trained.spec, known.items, dataset, labels, 1.0),
        opened_ms=opened,
        closed_ms=np.where(labels.label_L, labels.known_ms_L, opened + window_ms),
        start=coefficients_of(trained.model),
        fit=fitted.fit,
        start_ms=start_ms,
        until_ms=start_ms + _QUICK_DAYS * DAY_MS if quick else int(opened.max()) + 1,
    )


def _some(dataset: Dataset, seed: int) -> Dataset:
    users = dataset.users.column("user_id")
    drawn = np.random.default_rng(seed).random(len(users)) < _SHARE
    kept = users.filter(pa.array(drawn)).combine_chunks()

    def of_them(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table.column("user_id"), kept))

    return replace(dataset, events=of_them(dataset.events), queries=of_them(dataset.queries))


def figures_of(replay: Replay) -> dict[str, float]:
    """Return AUC, GAUC by user and log loss of each rhythm, and the AUC of users whom the training knew."""
    nothing = replay.start
    nothing = replace(nothing, user_MF=nothing.user_MF * 0, item_MF=nothing.item_MF * 0)
    alone, _ = fit_part(nothing, replay.before, replay.fit, "fixed")
    even = replace(replay.before, weight_E=torch.ones_like(replay.before.weight_E))
    unweighted, _ = fit_glmix(replay.start, even, replay.fit)
    tested = replay.tested
    foretold = {
        "fixed effect alone": logits(alone, tested),
        "never, unweighted": logits(unweighted, tested),
        "never, no effect of users": logits(replay.start, tested, ("fixed", "item")),
        **{name: replay.lived(rhythm) for name, rhythm in RHYTHMS.items()},
    }
    known_T = torch.isin(tested.user_row_E, replay.before.user_row_E).numpy()
    figures = {"labels": float(len(tested)), "labels of known users": float(known_T.sum())}
    for name, logit_T in foretold.items():
        figures |= {f"{name}, {metric}": value for metric, value in _metrics(tested, logit_T).items()}
        of_known = _metrics(tested[torch.from_numpy(known_T)], logit_T[torch.from_numpy(known_T)])
        figures[f"{name}, AUC of known users"] = of_known["AUC"]
    strengths = {f"{part} L2": replay.fit.l2(part) for part in PARTS}
    return figures | strengths


def _metrics(examples: Examples, logit_T: torch.Tensor) -> dict[str, float]:
    label_T, score_T = examples.label_E.numpy() > 0, logit_T.numpy()
    return {
        "AUC": auc(label_T, score_T),
        "GAUC": gauc(label_T, score_T, examples.user_row_E.numpy()),
        "log loss": log_loss(label_T, torch.sigmoid(logit_T).numpy()),
    }
