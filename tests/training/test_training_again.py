"""Rankers that are trained again on the requests that stopped them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shards.cross_kinds import WordPlaces
from shards.release import GateRules
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import FIT, RECIPE, STAGE, gate
from training.checkpoints import Checkpoints
from training.datasets.splits import known_until_ms
from training.learning import learn
from training.rankers import Rankers
from training.recipe import Recipe
from training.run import Run
from training.trainer import Advanced, EpochEnded, Observer, PhaseStarted, ignore

assert RECIPE.pre_ranker is not None
assert RECIPE.ranker is not None
_STAGE = replace(STAGE, fit=replace(FIT, epochs=3, patience=1))
ONCE = replace(
    RECIPE,
    channels=tuple(c for c in RECIPE.channels if c.source not in ("two_tower", "lexical")),
    features=replace(
        RECIPE.features,
        ranking=(*RECIPE.features.ranking[:7], WordPlaces(name="places", source="item.title")),
    ),
    pre_ranker=replace(RECIPE.pre_ranker, training=_STAGE),
    ranker=replace(RECIPE.ranker, training=_STAGE, model=replace(RECIPE.ranker.model, members=2)),
    gate=GateRules(),
    gate_model=None,
)
AGAIN = replace(ONCE, train_again=True)
STAGES = ("pre_ranker", "ranker", "ranker_2")
DATA = shop_dataset()


class Broken(Exception):
    """Ends a run."""


def learned(recipe: Recipe, observe: Observer = ignore, folder: Path | None = None) -> Rankers:
    run = Run(
        recipe=recipe,
        dataset=DATA,
        seed=3,
        gate=gate,
        observe=observe,
        checkpoints=Checkpoints(folder=folder, every_s=0),
    )
    found = learn(run, known_until_ms(DATA), "shop").rankers
    assert found is not None
    return found


def parameters(rankers: Rankers) -> Mapping[str, Tensor]:
    assert rankers.pre_ranker is not None
    assert rankers.ranker is not None
    kept = {"pre_ranker": rankers.pre_ranker.state_dict(), "ranker": rankers.ranker.state_dict()}
    return {f"{stage} {name}": value for stage, state in kept.items() for name, value in state.items()}


@dataclass(frozen=True, slots=True)
class Observed:
    rankers: Rankers
    ended: list[EpochEnded]
    steps: dict[str, int]
    """Of the first epoch of each model."""


@pytest.fixture(scope="module")
def again() -> Observed:
    ended: list[EpochEnded] = []
    steps: dict[str, int] = {}

    def observe(event: PhaseStarted | Advanced | EpochEnded) -> None:
        if isinstance(event, EpochEnded):
            ended.append(event)
        elif isinstance(event, PhaseStarted) and event.phase.endswith(", epoch 1"):
            steps[event.phase.removesuffix(", epoch 1")] = event.total

    return Observed(learned(AGAIN, observe), ended, steps)


def test_all_requests_train_for_as_long_as_was_best(again: Observed) -> None:
    for stage in STAGES:
        metrics = [event.metric for event in again.ended if event.model == stage]
        repeated = [event for event in again.ended if event.model == f"{stage}_again"]
        assert len(repeated) == 1 + metrics.index(max(metrics))
        assert again.steps[f"{stage}_again"] > again.steps[stage]


def test_figures_and_thresholds_are_those_of_requests_held_out(again: Observed) -> None:
    once = learned(ONCE)
    for name in ("pre_ranker_ndcg", "ranker_ndcg", "serving", "spec"):
        assert getattr(again.rankers, name) == getattr(once, name)
    before, after = parameters(once), parameters(again.rankers)
    assert before.keys() == after.keys()
    assert not torch.equal(before["pre_ranker head.0.weight"], after["pre_ranker head.0.weight"])


@pytest.mark.parametrize("model", ["pre_ranker_again", "ranker_2_again"])
def test_a_run_broken_off_while_training_again_ends_bit_equal(
    tmp_path: Path, again: Observed, model: str
) -> None:
    def observe(event: PhaseStarted | Advanced | EpochEnded) -> None:
        if isinstance(event, PhaseStarted) and event.phase == f"{model}, epoch 1":
            raise Broken

    with pytest.raises(Broken):
        learned(AGAIN, observe, tmp_path)
    resumed = parameters(learned(AGAIN, folder=tmp_path))
    assert all(torch.equal(resumed[name], value) for name, value in parameters(again.rankers).items())
