"""Moments as command lines tell them."""

from deploy.event_lines import moment_ms
from shards.errors import FieldViolation, InvalidInput


def told_moment_ms(text: str, option: str) -> int:
    """Return a moment in ISO 8601, UTC where it names no zone; raises `InvalidInput` naming the option."""
    try:
        return moment_ms(text)
    except ValueError as error:
        raise InvalidInput(FieldViolation(option, f"{text!r} is no moment: {error}")) from error
