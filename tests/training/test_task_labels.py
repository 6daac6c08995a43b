"""Labels of tasks: what counts, what is not defined, what is not known yet."""

from dataclasses import replace

import pyarrow as pa
import pytest

from shards.search_context import SearchContext, UserState
from training.datasets.tables import TIMESTAMP, Dataset
from training.snapshot import Requests
from training.task_labels import UNDEFINED, TaskLabels, task_labels
from training.tasks import Task

NOW_MS = 100_000
HOUR_S = 3600
LATER_MS = NOW_MS + 10 * HOUR_S * 1000
EVENTS = [
    ("u", "a", "buy", NOW_MS - 1, 5.0),
    ("u", "a", "buy", NOW_MS, 2.0),
    ("u", "b", "buy", NOW_MS, 6.0),
    ("u", "c", "see", NOW_MS, None),
    ("u", "b", "return", NOW_MS + HOUR_S * 1000, 1.0),
    ("u", "d", "buy", LATER_MS, 1.0),
]


def dataset() -> Dataset:
    users, items, actions, times, amounts = (list(column) for column in zip(*EVENTS, strict=True))
    events = {
        "event_id": [str(e) for e in range(len(EVENTS))],
        "user_id": users,
        "item_id": items,
        "action": actions,
        "timestamp": pa.array(times, TIMESTAMP),
        "amount": pa.array(amounts, pa.float64()),
    }
    empty = pa.table({"item_id": pa.array([], pa.string())})
    return Dataset(
        name="d", items=empty, users=empty, events=pa.table(events), queries=empty, queries_are_proxies=False
    )


def requests(*times_ms: int) -> Requests:
    contexts = [SearchContext(user=UserState(user_id="u"), now_ms=now_ms) for now_ms in times_ms]
    return Requests(contexts=contexts, item_ids=["a"] * len(contexts))


def labels(task: Task, *, until_ms: int = LATER_MS) -> TaskLabels:
    ((found,),) = task_labels(dataset(), requests(NOW_MS), (task,), until_ms=until_ms)
    return found


def test_what_was_acted_on_is_relevant_and_nothing_else() -> None:
    assert labels(Task(name="t", target_only=True)).by_item == {"a": 1}
    bought = labels(Task(name="t", actions=("buy",)))
    assert bought.of(("a", "b", "c")) == ([1, 1, 0], [1, 1, 1])
    assert labels(Task(name="t", window_s=2 * HOUR_S, actions=("return",))).by_item == {"b": 1}


def test_a_value_is_defined_where_there_is_one() -> None:
    amounts = labels(Task(name="t", kind="regression", value="amount"))
    assert amounts.of(("a", "b", "c", "d")) == ([2, 6, 0, 0], [1, 1, 0, 0])
    much = labels(Task(name="t", value="amount", above=5.0))
    assert much.of(("a", "b", "c")) == ([0, 1, 0], [1, 1, 0])
    target = labels(Task(name="t", kind="regression", value="amount", target_only=True))
    assert target.by_item == {"a": 2}


def test_a_task_of_given_items_is_about_what_comes_later() -> None:
    returned = Task(name="t", given=("buy",), actions=("return",), window_s=2 * HOUR_S)
    assert labels(returned).of(("a", "b", "c")) == ([0, 1, 0], [1, 1, 0])
    again = replace(returned, actions=("buy",))
    assert labels(again).by_item == {"a": 0, "b": 0}, "the purchase itself is not a second one"


def test_examples_weigh_by_what_the_events_hold() -> None:
    weighed = labels(Task(name="t", actions=("buy",), example_weight="amount"))
    assert weighed.of(("a", "b", "c"))[1] == pytest.approx([0.5, 1.5, 1])


def test_a_window_that_is_still_open_is_undefined_and_nothing_later_is_read() -> None:
    returned = Task(name="t", given=("buy",), actions=("return",), window_s=2 * HOUR_S)
    assert labels(returned, until_ms=NOW_MS + HOUR_S * 1000) == UNDEFINED
    assert labels(returned, until_ms=NOW_MS + 2 * HOUR_S * 1000 + 1).by_item["b"] == 1
    assert labels(Task(name="t", actions=("buy",)), until_ms=NOW_MS).by_item == {}


def test_an_open_window_is_inferred_from_how_late_others_were() -> None:
    task = Task(name="t", given=("buy",), actions=("buy",), window_s=8 * HOUR_S, unclosed="infer")
    day_ms = 24 * HOUR_S * 1000
    rows = []
    for n in range(4):
        rows.append(("u", "a", "buy", n * day_ms, 1.0))
        if n < 2:
            rows.append(("u", "a", "buy", n * day_ms + (1 + 4 * n) * HOUR_S * 1000, 1.0))
    users, items, actions, times, _ = (list(column) for column in zip(*rows, strict=True))
    events = pa.table(
        {
            "event_id": [str(e) for e in range(len(rows))],
            "user_id": users,
            "item_id": items,
            "action": actions,
            "timestamp": pa.array(times, TIMESTAMP),
        }
    )
    asked = requests(*(n * day_ms for n in range(4)))
    until_ms = 3 * day_ms + 2 * HOUR_S * 1000
    found = task_labels(replace(dataset(), events=events), asked, (task,), until_ms=until_ms)
    closed = [one.by_item["a"] for (one,) in found[:3]]
    assert closed == [1, 1, 0]
    # Two of three come back, one of the two within the two hours that have gone by.
    assert found[3][0].by_item["a"] == pytest.approx(2 / 3 * 0.5 / (1 - 2 / 3 * 0.5))


def test_a_column_that_events_have_not_is_named() -> None:
    with pytest.raises(ValueError, match="events have no column 'stars'"):
        labels(Task(name="t", kind="regression", value="stars"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kind": "regression"}, "regression needs a value"),
        ({"kind": "completion"}, "completion needs a value"),
        ({"value": "amount"}, "binary with a value needs above"),
        ({"above": 1.0}, "above is about a value"),
        ({"length": "minutes"}, "length is for completion"),
        ({"given": ("buy",)}, "window_s must be positive"),
        ({"negatives": 0.0}, "negatives must be a share"),
        ({"kind": "watch_time", "value": "t", "negatives": 0.5}, "1 where the label is a number"),
        ({"unclosed": "infer"}, "inferred of given items alone"),
        ({"weight": -1.0}, "weight must not be negative"),
    ],
)
def test_tasks_that_cannot_be_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Task(name="t", **settings)  # type: ignore[arg-type]
