"""Look-up tables of what queries, words and items are known for: (key, item_id, score), as of a moment."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from shards.column_encoder import text_of
from shards.words import normalised, words
from training.datasets.splits import before
from training.datasets.statistics import DAY_MS
from training.datasets.tables import timestamps_ms


def query_memory(queries: pa.Table, now_ms: int, *, half_life_days: float, top: int) -> pa.Table:
    """Return for every query text the items taken after it: each one's decayed share of the takes.

    The share is smoothed by one take, so that a text met once does not look certain.
    """
    return _memory(
        weighted_queries(queries, now_ms, half_life_days), lambda text: (normalised(text),), top=top
    )


def token_memory(queries: pa.Table, now_ms: int, *, half_life_days: float, top: int) -> pa.Table:
    """Return for every word of the queries the items taken after it, as in `query_memory`."""
    return _memory(
        weighted_queries(queries, now_ms, half_life_days), lambda text: tuple(set(words(text))), top=top
    )


def title_popularity(items: pa.Table, *, text: Sequence[str], popularity: str, top: int) -> pa.Table:
    """Return for every word of the items' `text` columns the popular items that have it.

    An item's score is its share of the popularity of all items with the word, each divided by the root of
    the number of its words: of two equally popular items the one whose text says less is more likely meant.
    """
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    columns = (items.column(name).to_pylist() for name in ("item_id", popularity, *text))
    for item_id, count, *parts in zip(*columns, strict=True):
        own = sorted({word for part in parts for word in words(text_of(part))})
        for word in own:
            scores[word][item_id] = (1.0 + (count or 0.0)) / len(own) ** 0.5
    return _table({word: _shares(found, prior=1.0) for word, found in scores.items()}, top=top)


def popular_items(items: pa.Table, *, popularity: str, top: int) -> pa.Table:
    """Return the items with the highest `popularity` column under the one key ""."""
    columns = (items.column(name).to_pylist() for name in ("item_id", popularity))
    found = {item_id: float(count) for item_id, count in zip(*columns, strict=True) if count}
    return _table({"": found}, top=top)


def weighted_queries(
    queries: pa.Table, now_ms: int, half_life_days: float
) -> Iterable[tuple[str, str, float]]:
    """Return the text, the item and the decayed weight of each query before `now_ms`."""
    past = before(queries, now_ms)
    age_days = (now_ms - timestamps_ms(past)) / DAY_MS
    weights = np.exp2(-age_days / half_life_days).tolist()
    return zip(past.column("query").to_pylist(), past.column("item_id").to_pylist(), weights, strict=True)


def _memory(
    takes: Iterable[tuple[str, str, float]], keys_of: Callable[[str], Iterable[str]], *, top: int
) -> pa.Table:
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for text, item_id, weight in takes:
        for key in keys_of(text):
            totals[key][item_id] += weight
    return _table({key: _shares(found, prior=1.0) for key, found in totals.items() if key}, top=top)


def _shares(weights: Mapping[str, float], *, prior: float) -> dict[str, float]:
    total = sum(weights.values()) + prior
    return {item_id: weight / total for item_id, weight in weights.items()}


def _table(found: Mapping[str, Mapping[str, float]], *, top: int) -> pa.Table:
    """Return the best `top` items of each key, keys sorted, best first, ties by item id."""
    rows = [
        (key, item_id, score)
        for key in sorted(found)
        for item_id, score in sorted(found[key].items(), key=lambda pair: (-pair[1], pair[0]))[:top]
    ]
    keys, item_ids, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "item_id": pa.array(item_ids, pa.string()),
            "score": pa.array(scores, pa.float32()),
        }
    )
