"""Labels of tasks: what each request's items came to, and where that is not known.

Nothing looks at events from the moment of training on. A label whose window is not over by then is undefined,
or inferred from how late what happens does happen: with the share r of closed labels that became positive and
the share F(e) of those that had by the age e, what has not happened at the age e still will with probability
r (1 - F(e)) / (1 - r F(e)). GLMix closes labels after 14 days or infers them earlier.

Legend: Q = requests, T = tasks, D = delays of positives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.datasets.tables import Dataset, timestamps_ms
from training.snapshot import Requests
from training.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLabels:
    """One request's labels for one task."""

    by_item: Mapping[str, float] = field(default_factory=dict)
    otherwise: float | None = 0.0
    """The label of all other items; None: it is undefined."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How examples of items weigh; others weigh 1."""

    def of(self, item_ids: Sequence[str]) -> tuple[list[float], list[float]]:
        """Return the label and the weight of each item [C]; both are 0 where it is not defined."""
        labels = [self.by_item.get(item_id, self.otherwise) for item_id in item_ids]
        weights = [
            0.0 if label is None else self.weights.get(item_id, 1.0)
            for item_id, label in zip(item_ids, labels, strict=True)
        ]
        return [label or 0.0 for label in labels], weights


UNDEFINED = TaskLabels(otherwise=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """One user's events, oldest first."""

    item_ids: tuple[str, ...]
    actions: tuple[str, ...]
    times_ms: NDArray[np.int64]
    numbers: Mapping[str, NDArray[np.float64]]

    def between(self, start_ms: int, end_ms: int, actions: Sequence[str]) -> list[int]:
        """Return the events in [start, end] with one of these actions, any if there is none."""
        first, last = np.searchsorted(self.times_ms, [start_ms, end_ms + 1]).tolist()
        return [e for e in range(first, last) if not actions or self.actions[e] in actions]


_NOBODY = _Log(item_ids=(), actions=(), times_ms=np.zeros(0, np.int64), numbers={})


def task_labels(
    dataset: Dataset, requests: Requests, tasks: Sequence[Task], *, until_ms: int
) -> list[tuple[TaskLabels, ...]]:
    """Return the labels [Q][T], made from events before `until_ms` alone.

    Raises ValueError for a column of a task that the events have not.
    """
    logs = _logs(dataset.events, tasks, until_ms)
    by_task = [_labels_of(task, requests, logs, until_ms) for task in tasks]
    return list(zip(*by_task, strict=True))


def _logs(events: pa.Table, tasks: Sequence[Task], until_ms: int) -> dict[str, _Log]:
    names = sorted({name for task in tasks for name in (task.value, task.example_weight) if name})
    if missing := [name for name in names if name not in events.column_names]:
        raise ValueError(f"events have no column {missing[0]!r}, which a task is about")
    time_E = timestamps_ms(events)
    users = events.column("user_id").combine_chunks().dictionary_encode()
    user_E = users.indices.to_numpy()
    order = np.lexsort((time_E, user_E))
    order = order[time_E[order] < until_ms]
    item_ids, actions = (events.column(name).to_pylist() for name in ("item_id", "action"))
    numbers = {name: events.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names}
    bounds = np.searchsorted(user_E[order], np.arange(len(users.dictionary) + 1))
    found = {}
    for user, user_id in enumerate(users.dictionary.to_pylist()):
        rows = order[bounds[user] : bounds[user + 1]]
        found[user_id] = _Log(
            item_ids=tuple(item_ids[row] for row in rows),
            actions=tuple(actions[row] for row in rows),
            times_ms=time_E[rows],
            numbers={name: column[rows] for name, column in numbers.items()},
        )
    return found


def _labels_of(task: Task, requests: Requests, logs: Mapping[str, _Log], until_ms: int) -> list[TaskLabels]:
    asked = zip(requests.contexts, requests.item_ids, strict=True)
    made, delays_ms = [], []
    for context, item_id in asked:
        log = logs.get(context.user.user_id, _NOBODY)
        labels, late_ms = _one(task, log, context.now_ms, item_id)
        made.append(labels)
        delays_ms.append(late_ms)
    ages_ms = np.array([until_ms - context.now_ms for context in requests.contexts], np.int64)
    open_Q = ages_ms <= task.window_s * 1000 if task.window_s else np.zeros(len(made), np.bool_)
    made = _weighed(task, made)
    if not open_Q.any():
        return made
    if task.unclosed == "mask" or open_Q.all():
        return [UNDEFINED if unclosed else one for one, unclosed in zip(made, open_Q, strict=True)]
    return _inferred(made, delays_ms, ages_ms, open_Q)


def _one(task: Task, log: _Log, now_ms: int, item_id: str) -> tuple[TaskLabels, list[int]]:
    """Return the labels of one request as its events stand, and how late each positive came."""
    if task.target_only and not task.value:
        weights = _weights(task, log, log.between(now_ms, now_ms, task.actions), {item_id})
        return TaskLabels(by_item={item_id: 1.0}, weights=weights), []
    start_ms = now_ms if task.given is None else now_ms + 1
    events = log.between(start_ms, now_ms + task.window_s * 1000, task.actions)
    if task.value:
        return _valued(task, log, events, {item_id} if task.target_only else None), []
    first: dict[str, int] = {}
    for event in events:
        first.setdefault(log.item_ids[event], event)
    given = None
    if task.given is not None:
        given = {log.item_ids[event] for event in log.between(now_ms, now_ms, task.given)}
        first = {found: event for found, event in first.items() if found in given}
    labels = {} if given is None else dict.fromkeys(given, 0.0)
    late_ms = [int(log.times_ms[event]) - now_ms for event in first.values()]
    weights = _weights(task, log, list(first.values()), set(first))
    by_item = labels | dict.fromkeys(first, 1.0)
    return TaskLabels(by_item=by_item, otherwise=None if given is not None else 0.0, weights=weights), late_ms


def _valued(task: Task, log: _Log, events: Sequence[int], about: set[str] | None) -> TaskLabels:
    """Return labels that are a column of the first event of each item, or whether that is enough."""
    values: dict[str, float] = {}
    for event in events:
        item_id, value = log.item_ids[event], float(log.numbers[task.value][event])
        if (about is None or item_id in about) and np.isfinite(value):
            values.setdefault(item_id, value if task.above is None else float(value >= task.above))
    return TaskLabels(by_item=values, otherwise=None, weights=_weights(task, log, events, set(values)))


def _weights(task: Task, log: _Log, events: Sequence[int], about: set[str]) -> dict[str, float]:
    """Return what the events of the items hold in the column that they weigh by, where that is known."""
    if not task.example_weight:
        return {}
    found = ((log.item_ids[event], float(log.numbers[task.example_weight][event])) for event in events)
    return {item_id: value for item_id, value in found if item_id in about and np.isfinite(value)}


def _weighed(task: Task, made: list[TaskLabels]) -> list[TaskLabels]:
    """Return the labels with weights relative to their mean; a weight below 0 is none."""
    values = [max(value, 0.0) for one in made for value in one.weights.values()]
    mean = float(np.mean(values)) if values else 0.0
    if not task.example_weight or mean <= 0:
        return [replace(one, weights={}) for one in made] if task.example_weight else made
    return [
        replace(one, weights={item: max(value, 0.0) / mean for item, value in one.weights.items()})
        for one in made
    ]


def _inferred(
    made: Sequence[TaskLabels],
    delays_ms: Sequence[list[int]],
    ages_ms: NDArray[np.int64],
    open_Q: NDArray[np.bool_],
) -> list[TaskLabels]:
    """Return the labels, those of open windows with what may still happen."""
    closed = np.flatnonzero(~open_Q).tolist()
    delay_D = np.sort(np.array([late for q in closed for late in delays_ms[q]], np.int64))
    known = [label for q in closed for label in made[q].by_item.values()]
    rate = float(np.mean(known)) if known else 0.0
    found = list(made)
    for q in np.flatnonzero(open_Q).tolist():
        seen = float(np.searchsorted(delay_D, ages_ms[q], side="right")) / max(len(delay_D), 1)
        still = rate * (1 - seen) / max(1 - rate * seen, 1e-9)
        by_item = {item_id: max(label, still) for item_id, label in made[q].by_item.items()}
        found[q] = replace(made[q], by_item=by_item)
    return found
