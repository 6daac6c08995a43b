"""Optuna studies that last: trials lie in a SQLite file of a folder, and a run that was broken off goes on.

Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_study(
    folder: Path,
    name: str,
    directions: Sequence[Literal["minimize", "maximize"]],
    *,
    seed: int,
    startup: int,
    pruner: BasePruner | None = None,
) -> optuna.Study:
    """Return the folder's study of this name with the trials that it has; `startup` of all are random."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{(folder / 'trials.sqlite').absolute()}",
        directions=list(directions),
        pruner=pruner or NopPruner(),
        load_if_exists=True,
    )
    # Another seed for each trial, or a run that goes on would propose again what it began with.
    study.sampler = TPESampler(seed=seed + len(study.trials), n_startup_trials=startup)
    return study


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that came to an end, also those that were pruned or failed."""
    return study.get_trials(deepcopy=False, states=_ENDED)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have values."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
