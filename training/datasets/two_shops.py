"""Two shops made of one: items divided by half, each half with the sessions of its own.

**What stands for two shops** is the gift shop of `online_retail`: an item belongs to shop "a" or "b" by its
title, so that no item is in both, and an invoice of items of both is somebody who shops at both. Real shops
have fewer such people than this; recipes say how many of these sessions they look at.
"""

import hashlib
from dataclasses import replace

import pyarrow as pa

from training.datasets.tables import Dataset


def two_shops(dataset: Dataset, *, name: str) -> Dataset:
    """Return the data set with the item column "shop"."""
    shops = [_shop(title) for title in dataset.items.column("title").to_pylist()]
    items = dataset.items.append_column("shop", pa.array(shops, pa.string()))
    return replace(dataset, name=name, items=items)


def _shop(title: str) -> str:
    return "ab"[hashlib.blake2b(title.encode(), digest_size=1).digest()[0] % 2]
