"""The page: the first items of the last stage, with what every stage knows of them."""

from collections.abc import Sequence
from math import isnan

from router.answer import Item
from shards.candidates import Candidates
from shards.merging import attributes_of


def page(
    ordered: Candidates,
    *,
    size: int,
    score_column: str,
    channels: Sequence[str],
    attribute_sources: Sequence[Candidates],
    shown: Sequence[str],
) -> tuple[Item, ...]:
    """Return the first `size` items in their order.

    The page is scored by `score_column`; an item's channels are those with a "<channel>.rank" for it, and
    those of its attributes that are `shown` come from the first source that knows them.
    """
    item_ids = ordered.item_ids[:size]
    columns = {name: column[:size].tolist() for name, column in ordered.columns.items()}
    attributes = attributes_of(item_ids, attribute_sources, shown)
    ranks = [(channel, f"{channel}.rank") for channel in channels]
    items = []
    for row, item_id in enumerate(item_ids):
        scores = {name: value for name, values in columns.items() if not isnan(value := values[row])}
        items.append(
            Item(
                item_id=item_id,
                score=columns[score_column][row],
                attributes=attributes[item_id],
                channels=tuple(channel for channel, rank in ranks if rank in scores),
                scores=scores,
            )
        )
    return tuple(items)
