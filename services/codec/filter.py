"""Filters: the conditions on item attributes."""

from protos.headrace.v1 import types_pb2 as pb
from services.codec.violations import Field, collecting
from shards.search_context import Filter, FilterClause


def filter_to_proto(clauses: Filter) -> pb.Filter:
    """Return the message of a filter."""
    return pb.Filter(clauses=[_clause_to_proto(clause) for clause in clauses])


def _clause_to_proto(clause: FilterClause) -> pb.FilterClause:
    message = pb.FilterClause(attribute=clause.attribute, negate=clause.negate)
    if clause.min is None and clause.max is None:
        message.any_of.values.extend(clause.any_of)
        message.any_of.SetInParent()
    else:
        message.range.CopyFrom(pb.NumberRange(min=clause.min, max=clause.max))
    return message


def filter_from_proto(message: pb.Filter) -> Filter:
    """Return the filter; raises `InvalidInput` with every field at fault, below "filter"."""
    with collecting("filter") as field:
        return read_filter(message, field)


def read_filter(message: pb.Filter, field: Field) -> Filter:
    """Return the filter; refuses clauses without attribute or condition and ranges that hold nothing."""
    clauses = field.child("clauses")
    return tuple(_read_clause(clause, clauses.element(i)) for i, clause in enumerate(message.clauses))


def _read_clause(message: pb.FilterClause, field: Field) -> FilterClause:
    field.child("attribute").check_set(message.attribute)
    any_of: tuple[str, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    match message.WhichOneof("condition"):
        case "any_of":
            any_of = tuple(message.any_of.values)
            field.child("any_of").check(bool(any_of), "must hold at least one value")
        case "range":
            bounds = _read_range(message.range, field.child("range"))
        case None:
            field.refuse("must have a condition: any_of or range")
    return FilterClause(
        attribute=message.attribute, any_of=any_of, min=bounds[0], max=bounds[1], negate=message.negate
    )


def _read_range(message: pb.NumberRange, field: Field) -> tuple[float | None, float | None]:
    low = message.min if message.HasField("min") else None
    high = message.max if message.HasField("max") else None
    field.check(low is not None or high is not None, "must have an end: min or max")
    finite = low is None or field.child("min").check_finite(low)
    finite &= high is None or field.child("max").check_finite(high)
    if finite and low is not None and high is not None:
        field.check(low <= high, f"must not be empty: min {low:g} is above max {high:g}")
    return low, high
