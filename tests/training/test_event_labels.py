"""Labels: when they open, close, are inferred, and what they weigh."""

import pyarrow as pa
import pytest

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.event_labels import LabelRule, labels_at

RULE = LabelRule(positive=("like",), negative=("dislike",), window_days=14)


def events(*rows: tuple[str, str, str, float, float | None]) -> pa.Table:
    """Return events of user, item, action, day and seconds."""
    users, items, actions, days, seconds = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": list(users),
            "item_id": list(items),
            "action": list(actions),
            "timestamp": pa.array([int(day * DAY_MS) for day in days], pa.int64()).cast(TIMESTAMP),
            "seconds": pa.array(seconds, pa.float64()),
        }
    )


SEEN = events(
    ("u", "liked", "see", 1, None),
    ("u", "liked", "like", 3, 30),
    ("u", "left", "see", 2, None),
    ("v", "disliked", "see", 2, None),
    ("v", "disliked", "dislike", 5, None),
    ("v", "late", "see", 1, None),
    ("v", "late", "like", 16, 90),
    ("w", "at once", "like", 4, 90),
)


def known(day: float, rule: LabelRule = RULE) -> dict[str, tuple[bool, float]]:
    """Return by item the label and the day on which it became known."""
    found = labels_at(SEEN, rule, int(day * DAY_MS))
    days = (found.known_ms_L / DAY_MS).tolist()
    return dict(zip(found.item_ids.to_pylist(), zip(found.label_L.tolist(), days, strict=True), strict=True))


def test_labels_are_known_when_inferred_or_closed_and_not_before() -> None:
    assert known(2.5) == {}
    assert known(4.5) == {"liked": (True, 3), "at once": (True, 4)}
    assert known(6)["disliked"] == (False, 5)
    assert known(15.5).keys() == {"liked", "at once", "disliked", "late"}
    assert known(99) == {
        "liked": (True, 3),
        "at once": (True, 4),
        "disliked": (False, 5),
        "late": (False, 15),
        "left": (False, 16),
    }


def test_without_actions_that_tell_of_dislike_negatives_wait_for_the_window() -> None:
    waiting = LabelRule(positive=("like",), window_days=14)
    assert "disliked" not in known(15.5, waiting)
    assert known(17, waiting)["disliked"] == (False, 16)


def test_positives_weigh_by_what_they_measure_and_one_on_average() -> None:
    found = labels_at(SEEN, LabelRule(positive=("like",), weight="seconds"), 99 * DAY_MS)
    weights = dict(zip(found.item_ids.to_pylist(), found.weight_L.tolist(), strict=True))
    assert weights == {"liked": 0.5, "at once": 1.5, "left": 1, "late": 1, "disliked": 1}
    with pytest.raises(ValueError, match="no column 'minutes'"):
        labels_at(SEEN, LabelRule(positive=("like",), weight="minutes"), DAY_MS * 99)


def test_labels_come_in_the_order_in_which_they_became_known() -> None:
    found = labels_at(SEEN, RULE, 99 * DAY_MS)
    assert found.item_ids.to_pylist() == ["liked", "at once", "disliked", "late", "left"]
    assert found.since(5 * DAY_MS).item_ids.to_pylist() == ["disliked", "late", "left"]
    assert len(labels_at(SEEN, RULE, 0)) == 0


def test_rules_that_cannot_be_are_refused() -> None:
    for positive in ((), ("a", "b")):
        with pytest.raises(ValueError, match="positive actions"):
            LabelRule(positive=positive, negative=("b",))
    with pytest.raises(ValueError, match="window_days must be above 0"):
        LabelRule(positive=("a",), window_days=0)
