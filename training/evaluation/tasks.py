"""What a release's ranker predicts of its tasks on held-out queries, beside what then happened.

Legend: Q = requests, C = candidates, N = examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.merging import PREFIXES
from shards.release import Stage
from training.datasets.contexts import search_contexts
from training.datasets.splits import rows_of
from training.datasets.tables import Dataset, timestamps_ms
from training.evaluation.offline import Cascade, GateRule, retrieve, stages
from training.evaluation.report import RANKED, sample_rows
from training.evaluation.task_figures import (
    ProbabilityFigures,
    ValueFigures,
    probability_figures,
    value_figures,
)
from training.snapshot import Requests
from training.task_labels import TaskLabels, task_labels
from training.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One task's defined examples: labels, what was served, and whose request each is of [N]."""

    label_N: NDArray[np.float64]
    prediction_N: NDArray[np.float64]
    group_N: NDArray[np.int64]
    item_ids: tuple[str, ...]


def held_out(dataset: Dataset, split: str, *, limit: int, history_limit: int) -> Requests:
    """Return the queries of a split as requests, or a fixed sample of them."""
    queries = rows_of(dataset.queries, split)
    rows = sample_rows(tuple(queries.column("query_id").to_pylist()), limit)
    queries = queries.take(pa.array(rows))
    contexts = list(search_contexts(dataset, queries, history_limit=history_limit))
    return Requests(contexts=contexts, item_ids=queries.column("item_id").to_pylist())


def predicted(
    cascade: Cascade,
    dataset: Dataset,
    requests: Requests,
    tasks: Sequence[Task],
    *,
    gate: GateRule = lambda *_: True,
    on_query: Callable[[], None] = lambda: None,
) -> dict[str, Predicted]:
    """Return each task's examples, of all candidates that the ranker is asked about.

    Labels are closed by the end of the data. A task without any defined example is left out.
    """
    times_ms = timestamps_ms(dataset.events)
    until_ms = int(times_ms.max(initial=0)) + 1
    labels = task_labels(dataset, requests, tasks, until_ms=until_ms)
    found: dict[str, list[_Examples]] = {task.name: [] for task in tasks}
    for q, context in enumerate(requests.contexts):
        retrieved = retrieve(cascade, context)
        ranked = stages(cascade, context, retrieved, gate_open=gate(context, retrieved)).get(RANKED)
        if ranked is not None and len(ranked):
            for t, task in enumerate(tasks):
                column = ranked.columns[f"{PREFIXES[Stage.RANKING]}.{task.name}"]
                found[task.name].append(_defined(labels[q][t], ranked.item_ids, column, q))
        on_query()
    return {name: _joined(parts) for name, parts in found.items() if any(len(p.label) for p in parts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    label: NDArray[np.float64]
    prediction: NDArray[np.float64]
    group: NDArray[np.int64]
    item_ids: list[str]


def _defined(
    labels: TaskLabels, item_ids: Sequence[str], column_C: NDArray[np.float32], request: int
) -> _Examples:
    label_C, weight_C = (np.array(values, np.float64) for values in labels.of(item_ids))
    rows = np.flatnonzero(weight_C > 0)
    return _Examples(
        label=label_C[rows],
        prediction=column_C[rows].astype(np.float64),
        group=np.full(len(rows), request, np.int64),
        item_ids=[item_ids[row] for row in rows.tolist()],
    )


def _joined(parts: Sequence[_Examples]) -> Predicted:
    return Predicted(
        label_N=np.concatenate([part.label for part in parts]),
        prediction_N=np.concatenate([part.prediction for part in parts]),
        group_N=np.concatenate([part.group for part in parts]),
        item_ids=tuple(item_id for part in parts for item_id in part.item_ids),
    )


def figures_of(
    tasks: Sequence[Task], found: Mapping[str, Predicted]
) -> dict[str, ProbabilityFigures | ValueFigures]:
    """Return the figures of each task; a completion that is adjusted by length is a number."""
    figures: dict[str, ProbabilityFigures | ValueFigures] = {}
    for task in tasks:
        if task.name in found:
            one = found[task.name]
            if task.kind == "binary" or (task.kind == "completion" and not task.length):
                figures[task.name] = probability_figures(one.label_N, one.prediction_N, one.group_N)
            else:
                figures[task.name] = value_figures(one.label_N, one.prediction_N)
    return figures
