"""Filters as a visitor types them: `colour=red,blue; price_gbp=2..10; -brand=acme`."""

from router.client import Clause
from shards.errors import FieldViolation, InvalidInput


def clauses_of(text: str) -> tuple[Clause, ...]:
    """Return the conditions; raises `InvalidInput` that names the one it cannot read."""
    return tuple(_clause(part.strip()) for part in text.replace("\n", ";").split(";") if part.strip())


def _clause(part: str) -> Clause:
    name, equals, wanted = (word.strip() for word in part.removeprefix("-").partition("="))
    if not (name and equals and wanted):
        raise InvalidInput(FieldViolation("filter", f"{part!r} is not NAME=VALUE, NAME=A,B or NAME=1..10"))
    negate = part.startswith("-")
    low, dots, high = wanted.partition("..")
    if not dots:
        values = tuple(value.strip() for value in wanted.split(",") if value.strip())
        return Clause(attribute=name, any_of=values, negate=negate)
    try:
        ends = [float(end) if end.strip() else None for end in (low, high)]
    except ValueError as error:
        raise InvalidInput(FieldViolation("filter", f"{wanted!r} is no range of numbers")) from error
    return Clause(attribute=name, min=ends[0], max=ends[1], negate=negate)
