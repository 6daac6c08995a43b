"""A made-up shop, big enough to train the whole cascade on in seconds.

Items are colour and thing; a user has one favourite colour and buys it after searching for a thing.
"""

import random

import pyarrow as pa

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset

COLOURS = ("red", "blue", "green", "pink", "black", "white")
THINGS = ("mug", "lamp", "candle", "bag", "clock", "bowl", "frame", "tin")
DAYS = 60
QUERIES = 900


def shop_dataset(*, seed: int = 0) -> Dataset:
    rng = random.Random(seed)
    items = [(f"{c[0]}{t[0:2]}{k}", f"{c} {t}", c, t) for k, c in enumerate(COLOURS) for t in THINGS]
    users = {f"u{number}": rng.choice(COLOURS) for number in range(40)}
    rows = []
    for number in range(QUERIES):
        user = rng.choice(list(users))
        thing = rng.choice(THINGS)
        item_id = next(i for i, _, c, t in items if c == users[user] and t == thing)
        rows.append((f"q{number:04}", (1 + number * DAYS * DAY_MS // QUERIES), user, thing, item_id))
    times = pa.array([row[1] for row in rows], TIMESTAMP)
    test_from, valid_from = int(QUERIES * 0.9), int(QUERIES * 0.8)
    splits = ["train" if n < valid_from else "valid" if n < test_from else "test" for n in range(QUERIES)]
    return Dataset(
        name="shop",
        items=pa.table({"item_id": [i for i, *_ in items], "title": [title for _, title, *_ in items]}),
        users=pa.table({"user_id": list(users), "country": ["uk"] * len(users)}),
        events=pa.table(
            {
                "event_id": [row[0] for row in rows],
                "user_id": [row[2] for row in rows],
                "item_id": [row[4] for row in rows],
                "action": ["purchase"] * len(rows),
                "timestamp": times,
                "price_gbp": [float(1 + len(row[3])) for row in rows],
            }
        ),
        queries=pa.table(
            {
                "query_id": [row[0] for row in rows],
                "timestamp": times,
                "user_id": [row[2] for row in rows],
                "query": [row[3] for row in rows],
                "item_id": [row[4] for row in rows],
                "split": splits,
            }
        ),
        queries_are_proxies=True,
    )
