"""Engine "multi_task": a probability per task for every candidate, fused into one score.

Files: program "scorer" → predictions [C, T], probabilities or other numbers, in the order of the manifest's
tasks, features.json.
The program may take by name: request features [1, …], item features [C, …], "cross" [C, K] and, where
the bundle has item_vectors.npy (float32 or float16 [N, D]), "item" [C, D]. It computes what depends on
the request alone once, not per candidate. Params: "task_exponents", task to exponent, 1 each by default;
"task_thresholds", task to the least value that does not set an item back; "length_adjustments", task to the
item column and the line that its predictions are divided by.
Legend: N = items, C = candidates, D = width of a vector, K = cross features, T = tasks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.ablation import CROSS, Inputs, contributions
from shards.bundle import Bundle
from shards.candidates import EMPTY, SCORE, Candidates, Floats
from shards.catalogue import (
    ITEM_VECTORS_FILE,
    Rows,
    answer,
    best_first,
    check_finite,
    known_rows,
    open_encoder,
    open_items,
    read_item_vectors,
    read_params,
)
from shards.errors import FieldViolation, InvalidInput, MismatchedBundle
from shards.feature_encoder import RequestEncoder
from shards.forward_index import ForwardIndex
from shards.length_adjustment import LengthAdjustment
from shards.manifest import MANIFEST_FILE
from shards.merging import fuse
from shards.runner import Runner, open_runner
from shards.search_context import SearchContext

SCORER = "scorer"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTaskParams:
    """Settings of the engine."""

    task_exponents: Mapping[str, float] = field(default_factory=dict)
    task_thresholds: Mapping[str, float] = field(default_factory=dict)
    length_adjustments: Mapping[str, LengthAdjustment] = field(default_factory=dict)

    @property
    def named(self) -> set[str]:
        """Return the tasks that there are settings for."""
        return {*self.task_exponents, *self.task_thresholds, *self.length_adjustments}


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTask:
    """Scores hundreds of candidates for every task."""

    bundle: Bundle
    items: ForwardIndex
    encoder: RequestEncoder
    scorer: Runner
    item_inputs: Mapping[str, NDArray[Any]]
    """What the scorer takes of each item [N, …], encoded once."""
    task_exponents: Mapping[str, float]
    task_thresholds: Mapping[str, float]
    expected_N: Mapping[str, Floats]
    """By task, what its predictions are divided by [N]."""

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `keep` known candidates by fused score, with a column for each task.

        InvalidInput names an exponent of a task that the model does not have.
        """
        self._check_exponents(task_exponents)
        rows, known = known_rows(self.items, candidates)
        probabilities = self._probabilities(context, rows, known)
        columns = {
            SCORE: fuse(probabilities, task_exponents or self.task_exponents, self.task_thresholds),
            **probabilities,
        }
        order = best_first(columns[SCORE], keep or len(rows))
        kept = {name: column[order] for name, column in columns.items()}
        return answer(self.items, rows[order], kept, attributes, attribute_count)

    def _probabilities(self, context: SearchContext, rows: Rows, known: Candidates) -> dict[str, Floats]:
        """Return each task's predictions [C], those of completion relative to their length."""
        tasks = self.bundle.manifest.tasks
        if not len(rows):
            return {task: np.empty(0, np.float32) for task in tasks}
        inputs = dict(self.encoder.encode_request(context)) | self._of_candidates(context, rows, known)
        (probability_CT,) = self.scorer(inputs).values()
        check_finite(probability_CT, self.bundle)
        return self._by_task(probability_CT, rows)

    def _of_candidates(
        self, context: SearchContext, rows: Rows, known: Candidates
    ) -> dict[str, NDArray[Any]]:
        """Return the inputs [C, …] that differ from candidate to candidate."""
        inputs = {name: values_N[rows] for name, values_N in self.item_inputs.items()}
        return inputs | {CROSS: self.encoder.encode_cross(context, rows, known)}

    def _by_task(self, probability_CT: Floats, rows: Rows) -> dict[str, Floats]:
        """Return the columns by task, those of completion relative to the length of the items at `rows`."""
        tasks = self.bundle.manifest.tasks
        found = {task: np.ascontiguousarray(probability_CT[:, t]) for t, task in enumerate(tasks)}
        return found | {task: found[task] / expected_N[rows] for task, expected_N in self.expected_N.items()}

    def explain(
        self,
        context: SearchContext,
        candidates: Candidates,
        count: int,
        task_exponents: Mapping[str, float],
        wanted: Callable[[], bool],
        /,
    ) -> Candidates:
        """Return the first `count` known candidates in their order: "score", and what each feature adds.

        Raises InvalidInput as `score` does, and DeadlineExceeded where the answer is no longer `wanted`.
        """
        self._check_exponents(task_exponents)
        rows, known = known_rows(self.items, candidates)
        if not len(rows):
            return EMPTY
        exponents = task_exponents or self.task_exponents

        def fused(inputs: dict[str, NDArray[Any]]) -> Floats:
            (probability_CT,) = self.scorer(inputs).values()
            # Variants of the explained candidates, one after another.
            each = np.resize(rows[:count], len(probability_CT))
            return fuse(self._by_task(probability_CT, each), exponents, self.task_thresholds)

        assert self.bundle.spec is not None, "open_encoder refuses a bundle without features"
        inputs = Inputs(
            request=self.encoder.encode_request(context),
            candidates=self._of_candidates(context, rows, known),
            cross_names=self.bundle.spec.cross_names,
        )
        score_E, by_feature = contributions(inputs, count, fused, wanted=wanted)
        check_finite(score_E, self.bundle)
        return Candidates(item_ids=known.item_ids[:count], columns={**by_feature, SCORE: score_E})

    def _check_exponents(self, task_exponents: Mapping[str, float]) -> None:
        tasks = self.bundle.manifest.tasks
        violations = [
            FieldViolation(f"task_exponents[{task}]", f"is no task; there are {', '.join(tasks)}")
            for task in sorted(task_exponents.keys() - set(tasks))
        ]
        if violations:
            raise InvalidInput(*violations)


def open_multi_task(bundle: Bundle, device: str) -> MultiTask:
    """Open the engine; BundleError names the file at fault."""
    tasks = bundle.manifest.tasks
    params = read_params(MultiTaskParams, bundle)
    if unknown := sorted(params.named - set(tasks)):
        raise MismatchedBundle(MANIFEST_FILE, f"has a setting for {unknown[0]!r}, which is no task of it")
    items = open_items(bundle)
    encoder = open_encoder(bundle, items)
    scorer = open_runner(bundle, SCORER, device)
    return MultiTask(
        bundle=bundle,
        items=items,
        encoder=encoder,
        scorer=scorer,
        item_inputs=_item_inputs(bundle, items, encoder, {tensor.name for tensor in scorer.spec.inputs}),
        task_exponents=params.task_exponents or dict.fromkeys(tasks, 1.0),
        task_thresholds=params.task_thresholds,
        expected_N={
            task: adjustment.expected_of(items.columns((adjustment.column,))[adjustment.column])
            for task, adjustment in params.length_adjustments.items()
        },
    )


def _item_inputs(
    bundle: Bundle, items: ForwardIndex, encoder: RequestEncoder, taken: set[str]
) -> dict[str, NDArray[Any]]:
    """Return the inputs [N, …] that depend on the item alone, those that the scorer takes."""
    inputs: dict[str, NDArray[Any]] = {}
    if ITEM_VECTORS_FILE in bundle.manifest.files:
        vectors_ND = read_item_vectors(bundle.file(ITEM_VECTORS_FILE), len(items))
        inputs["item"] = vectors_ND.astype(np.float32, copy=False)
    assert bundle.spec is not None, "open_encoder refuses a bundle without features"
    if taken.intersection(feature.name for feature in bundle.spec.on("item")):
        inputs |= encoder.encode_items(items.columns(bundle.spec.item_columns))
    return {name: values for name, values in inputs.items() if name in taken}
