"""Chooses settings of a recipe: `headrace tune recipe` tries what its search space holds.

Each trial trains as far as the figure takes that the space names, on queries that training does not see. One
whose epochs fall behind the others' median is given up. The test split is never looked at.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState

from shards.errors import CorruptRecord, FieldViolation, InvalidInput, NotFound
from shards.json_codec import from_json, parse, render, to_json
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.pipeline import rehearse
from training.recipe import Recipe, Searched, version_of
from training.run import Run
from training.studies import completed, ended, open_study
from training.trainer import Advanced, EpochEnded, Observer, PhaseStarted, ignore
from training.whole_file import write_whole

BEST_FILE = "best.json"
_SETTINGS = "settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial: what it set, as `--set` takes it, and the figure; NaN where it was given up."""

    number: int
    settings: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The settings that gave the best figure, and how many trials there were."""

    recipe: str
    metric: str
    value: float
    settings: tuple[str, ...]
    trials: int


@dataclass(slots=True, kw_only=True)
class RecipeTuner:
    """Tunes one recipe on one data set; `folder` keeps the trials and the best settings."""

    recipe: Recipe
    dataset: Dataset
    dataset_digest: str
    folder: Path
    seed: int = 0
    threads: int = 1
    fixed: tuple[str, ...] = ()
    """What `recipe` has in place of the recipe's own settings; kept with the best ones."""
    observe: Observer = ignore
    on_trial: Callable[[Tried], None] = lambda _: None
    _study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        if not self.recipe.search.settings:
            raise InvalidInput(FieldViolation("recipe", f"{self.recipe.name!r} declares no search space"))
        self._study = open_study(
            self.folder,
            _study_name(self.recipe, self.dataset_digest, self.seed),
            ["maximize"],
            seed=self.seed,
            startup=2 * len(self.recipe.search.settings),
            pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        )

    def tune(self, trials: int) -> Best:
        """Try so many settings in all, those of earlier runs included, and keep the best.

        Raises `InvalidInput` where no trial came to a figure.
        """
        while len(ended(self._study)) < trials:
            self._try(self._study.ask())
        found = completed(self._study)
        if not found:
            raise InvalidInput(FieldViolation("recipe", "no trial came to an end with a figure"))
        chosen = max(found, key=_value)
        best = Best(
            recipe=self.recipe.name,
            metric=self.recipe.search.metric,
            value=_value(chosen),
            settings=(*self.fixed, *chosen.user_attrs[_SETTINGS]),
            trials=len(ended(self._study)),
        )
        write_whole(self.folder / BEST_FILE, lambda file: file.write(render(to_json(best))))
        return best

    def _try(self, trial: optuna.Trial) -> None:
        settings = tuple(f"{s.path}={_suggested(trial, s)}" for s in self.recipe.search.settings)
        trial.set_user_attr(_SETTINGS, list(settings))
        value = float("nan")
        try:
            value = self._figure(settings, trial)
            self._study.tell(trial, value)
        except optuna.TrialPruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        except FloatingPointError:
            # Some settings make a loss diverge: that is a result too.
            self._study.tell(trial, state=TrialState.FAIL)
        self.on_trial(Tried(number=trial.number + 1, settings=settings, value=value))

    def _figure(self, settings: tuple[str, ...], trial: optuna.Trial) -> float:
        def report(event: PhaseStarted | Advanced | EpochEnded) -> None:
            self.observe(event)
            if isinstance(event, EpochEnded) and event.metric == event.metric:
                trial.report(event.metric, event.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        run = Run(
            recipe=with_overrides(self.recipe.searched(), settings),
            dataset=self.dataset,
            seed=self.seed,
            threads=self.threads,
            gate=lambda *_: True,
            observe=report,
        )
        figures = rehearse(run)
        if self.recipe.search.metric not in figures:
            problem = f"{self.recipe.search.metric!r} is none of the figures: {', '.join(figures)}"
            raise InvalidInput(FieldViolation("recipe", problem))
        return figures[self.recipe.search.metric]


def read_best(folder: Path) -> Best:
    """Return the best settings that a folder keeps; raises `NotFound` where nothing was tuned yet."""
    path = folder / BEST_FILE
    if not path.exists():
        raise NotFound("tuned settings", str(path))
    try:
        return from_json(Best, parse(path.read_bytes()))
    except ValueError as error:
        raise CorruptRecord(str(folder), BEST_FILE, str(error)) from error


def _study_name(recipe: Recipe, dataset_digest: str, seed: int) -> str:
    """Return a name for what trials have in common, so that those of another space are not mixed in."""
    space = hashlib.sha256(render(to_json(recipe.search))).hexdigest()[:10]
    return f"{version_of(recipe, dataset_digest, seed)}-{space}"


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None, "it is complete"
    return trial.value


def _suggested(trial: optuna.Trial, searched: Searched) -> str:
    if searched.choices:
        return str(trial.suggest_categorical(searched.path, list(searched.choices)))
    if searched.integer:
        low, high = round(searched.low), round(searched.high)
        return str(trial.suggest_int(searched.path, low, high, log=searched.log))
    return repr(trial.suggest_float(searched.path, searched.low, searched.high, log=searched.log))
