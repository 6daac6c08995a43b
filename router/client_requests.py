"""What the Python client asks: messages made of plain values, with protos alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protos.headrace.v1 import types_pb2
from router.client_events import timestamp
from router.client_results import StageList

if TYPE_CHECKING:
    from shards.search_context import SearchContext

FeatureInput = str | float | Sequence[str]
"""A raw feature: a category or text, a number, or several categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One condition on an item attribute: any of some values, or a closed range; `negate` turns it round."""

    attribute: str
    any_of: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    negate: bool = False


def features(values: Mapping[str, FeatureInput]) -> dict[str, types_pb2.FeatureValue]:
    """Return the messages of raw features by name."""
    return {name: _feature(value) for name, value in values.items()}


def clauses(given: Sequence[Clause]) -> types_pb2.Filter:
    """Return the message of a filter: its clauses, joined by "and"."""
    return types_pb2.Filter(clauses=[_clause(clause) for clause in given])


def context(search: "SearchContext") -> types_pb2.SearchContext:
    """Return the message of what a stage shall know about the search."""
    history = search.user.history
    return types_pb2.SearchContext(
        query=search.query,
        user=types_pb2.UserState(
            user_id=search.user.user_id,
            features=features(search.user.features),
            history=types_pb2.History(
                item_ids=history.item_ids, actions=history.actions, timestamps_ms=history.timestamps_ms
            ),
        ),
        features=features(search.features),
        now=timestamp(search.now_ms),
    )


def candidates(given: StageList) -> types_pb2.Candidates:
    """Return the message of candidates with their columns; attributes stay here."""
    return types_pb2.Candidates(
        item_ids=given.item_ids,
        columns=[types_pb2.FloatColumn(name=name, values=values) for name, values in given.columns.items()],
    )


def _feature(value: FeatureInput) -> types_pb2.FeatureValue:
    if isinstance(value, str):
        return types_pb2.FeatureValue(text=value)
    if isinstance(value, int | float):
        return types_pb2.FeatureValue(number=value)
    return types_pb2.FeatureValue(texts=types_pb2.TextList(values=value))


def _clause(clause: Clause) -> types_pb2.FilterClause:
    message = types_pb2.FilterClause(attribute=clause.attribute, negate=clause.negate)
    if clause.any_of:
        message.any_of.values.extend(clause.any_of)
    if clause.min is not None or clause.max is not None:
        message.range.CopyFrom(types_pb2.NumberRange(min=clause.min, max=clause.max))
    return message
