"""A part of `make bench-quality`: Avito's item vectors: int8, no ids, learned from what is hardest (R10).

Over online_retail: the recipe `avito` learns from what customers bought within eight hours before the valid
split, but for an eighth of the items, which nobody has bought as far as it knows. How fast it learns is
measured on pairs of the valid split, everything else on those of the test split.

Legend: N = items, D = width of a vector.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least, at_most
from tests.bench.spread import mean_of, spread_of_each
from training.datasets.splits import split_of
from training.datasets.tables import Dataset
from training.item_pairs import (
    ItemPairs,
    ItemPairTraining,
    found_within,
    item_pairs,
    pairs_between,
    train_item_pairs,
)
from training.item_vectors import new_tower
from training.models.item_tower import ItemTower, as_codes
from training.recipe import Recipe
from training.recipes import RECIPES
from training.snapshot import snapshot
from training.tensors import Tensors
from training.trainer import Advanced, EpochEnded, PhaseStarted, Seeded

EVENTS, QUICK_EVENTS = 100_000, 10_000
"""The newest before the valid split; each is trained on once."""
EVERY = 20
"""Steps from one point of a curve to the next."""
NEW = 8
"""One of so many items is hidden from training."""
ASKED = 5_000
"""Pairs of a split, at most."""
DEPTHS = (10, 100)
_FORWARD = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What towers learn from and what they are asked: an item that was bought, and another one [Q]."""

    recipe: Recipe
    items: ForwardIndex
    tokenizer: Tokenizer
    taught: ItemPairs
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    test_new: tuple[Tensor, Tensor]
    """The other one is hidden from training."""

    @property
    def training(self) -> ItemPairTraining:
        """Return how the recipe trains."""
        assert self.recipe.item_pairs is not None
        return self.recipe.item_pairs


def item_vectors(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall, and seconds of one processor, by how many negatives count; of int8; of items nobody bought."""
    task = _task(run.load("online_retail"), QUICK_EVENTS if run.quick else EVENTS)
    runs = [_measured(task, seed) for seed in range(run.seeds)]
    means = {name: mean_of([each[name] for each in runs]) for name in runs[0]}
    chance = {k: k / (len(task.items) - 1) for k in DEPTHS}
    figures = {
        "seeds": run.seeds,
        "events": QUICK_EVENTS if run.quick else EVENTS,
        "pairs": {"valid": len(task.valid[0]), "test": len(task.test[0]), "test, new": len(task.test_new[0])},
        "chance": chance,
        "figures": spread_of_each(runs),
    }
    checks = []
    for k in DEPTHS:
        lost = 1 - means[f"int8, R@{k}"] / means[f"R@{k}"]
        checks += [
            at_most(f"int8, share of R@{k} that is lost", lost, 0.01),
            at_least(f"hardest 100 against all, R@{k}", means[f"R@{k}"], means[f"all, R@{k}"]),
            at_most(f"seconds to the R@{k} of all, over theirs", means[f"share of seconds, R@{k}"], 1.0),
            at_least(f"items that nobody bought, R@{k} over chance", means[f"new, R@{k}"] / chance[k], 5.0),
        ]
    return figures, checks


def _task(dataset: Dataset, events: int) -> Task:
    recipe, split = RECIPES["avito"], split_of(dataset.queries)
    assert recipe.item_pairs is not None
    hours = recipe.item_pairs.within_hours
    known = snapshot(dataset, split.valid_from_ms)
    items = ForwardIndex(known.items)
    new_N = torch.arange(len(items)) % NEW == 0
    rows = torch.from_numpy(items.rows_of(known.events.column("item_id").to_pylist()))
    seen = known.events.filter((~new_N[rows]).numpy())
    everything = item_pairs(dataset.events, items, hours)

    def asked(start_ms: int, end_ms: int, *, new: bool) -> tuple[Tensor, Tensor]:
        anchor, other = pairs_between(everything, start_ms, end_ms)
        kept = (~new_N[anchor] & (new_N[other] == new)).nonzero().squeeze(1)
        kept = kept[:: max(1, len(kept) // ASKED)]
        return anchor[kept], other[kept]

    titles = known.items.column("title").to_pylist()
    return Task(
        recipe=recipe,
        items=items,
        tokenizer=Tokenizer.train(titles, vocab_size=recipe.features.vocab_size),
        taught=item_pairs(seen.slice(max(0, len(seen) - events)), items, hours),
        valid=asked(split.valid_from_ms, split.test_from_ms, new=False),
        test=asked(split.test_from_ms, _FORWARD, new=False),
        test_new=asked(split.test_from_ms, _FORWARD, new=True),
    )


def _measured(task: Task, seed: int) -> dict[str, float]:
    hardest, curve = _trained(task, task.training, seed)
    everyone, other = _trained(task, replace(task.training, hardest=0), seed)
    vectors = {"": hardest, "int8, ": as_codes(hardest), "all, ": everyone}
    found = {"seconds": curve.seconds[-1], "all, seconds": other.seconds[-1]}
    for k in DEPTHS:
        found |= {
            f"{name}R@{k}": found_within(vector_ND, *task.test, k) for name, vector_ND in vectors.items()
        }
        found[f"new, R@{k}"] = found_within(vectors["int8, "], *task.test_new, k)
        found[f"share of seconds, R@{k}"] = curve.seconds_to(k, other.recalls[k][-1]) / other.seconds[-1]
    return found


class _Curve:
    """Recall on the valid split by seconds of processor time, without those that measuring takes."""

    def __init__(self, task: Task, model: ItemTower, item: Tensors) -> None:
        self.task, self.model, self.item = task, model, item
        self.seconds: list[float] = []
        self.recalls: dict[int, list[float]] = {k: [] for k in DEPTHS}
        self.steps, self.used_s, self.since_s = 0, 0.0, time.process_time()

    def __call__(self, event: PhaseStarted | Advanced | EpochEnded) -> None:
        """Hear of a step, and measure where it is time for that."""
        if isinstance(event, Advanced):
            self.steps += event.steps
        if isinstance(event, EpochEnded) or (isinstance(event, Advanced) and self.steps % EVERY == 0):
            self.used_s += time.process_time() - self.since_s
            self.seconds.append(self.used_s)
            vector_ND = self.vectors()
            for k, recalls in self.recalls.items():
                recalls.append(found_within(vector_ND, *self.task.valid, k))
            self.since_s = time.process_time()

    def seconds_to(self, k: int, aim: float) -> float:
        """Return after how many seconds the recall among `k` was as high; infinite where it never was."""
        passed = (s for s, recall in zip(self.seconds, self.recalls[k], strict=True) if recall >= aim)
        return next(passed, math.inf)

    @torch.inference_mode()
    def vectors(self) -> Tensor:
        """Return the vectors of all items [N, D]."""
        training = self.model.training
        vector_ND: Tensor = self.model.eval()(self.item)
        self.model.train(training)
        return vector_ND


def _trained(task: Task, training: ItemPairTraining, seed: int) -> tuple[Tensor, _Curve]:
    """Return the vectors of all items [N, D] and how fast they became good."""
    generator = Seeded(seed=seed).apply()
    model, item = new_tower(task.recipe, task.items, task.tokenizer)
    curve = _Curve(task, model, item)
    train_item_pairs(model, training, task.taught, item, generator, observe=curve)
    return curve.vectors(), curve
