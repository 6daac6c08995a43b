"""A sound dataset of a few rows, for tests to break."""

import pyarrow as pa

from training.datasets.tables import TIMESTAMP, Dataset


def small_dataset() -> Dataset:
    """Return three items, two users, three events and four queries with one of every optional column."""
    return Dataset(
        name="small",
        items=pa.table({"item_id": ["a", "b", "c"], "title": ["red mug", "blue mug", ""]}),
        users=pa.table({"user_id": ["u1", "u2"], "country": ["uk", None]}),
        events=pa.table(
            {
                "event_id": ["e1", "e2", "e3"],
                "user_id": ["u1", "u1", "u2"],
                "item_id": ["a", "b", "c"],
                "action": ["like", "watch", "like"],
                "timestamp": pa.array([1000, 2000, 2000], TIMESTAMP),
                "rating": [5.0, None, 4.0],
                "session_id": ["s1", "s1", None],
            }
        ),
        queries=pa.table(
            {
                "query_id": ["q1", "q2", "q3", "q4"],
                "timestamp": pa.array([1000, 2000, 3000, 4000], TIMESTAMP),
                "user_id": ["u1", "u2", "", "u1"],
                "query": ["mug", "blue", "red", ""],
                "item_id": ["a", "b", "a", "b"],
                "split": ["train", "train", "valid", "test"],
            }
        ),
        queries_are_proxies=False,
    )
