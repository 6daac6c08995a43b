"""Collect every violation of a request, each under the path of its field."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from shards.errors import FieldViolation, InvalidInput


class Field:
    """Where the reader is in a request, and the list that takes what is wrong there.

    Every part of every request has one, and hardly any is wrong: a path is put together when it is asked for.
    """

    __slots__ = ("_before", "_step", "violations")

    def __init__(self, step: str, violations: list[FieldViolation], before: "Field | None" = None) -> None:
        self._step = step
        self._before = before
        self.violations = violations

    @property
    def path(self) -> str:
        """Return the way to the field, as "filter.clauses[0].range"."""
        before = self._before.path if self._before else ""
        return before + (self._step if before else self._step.removeprefix("."))

    def child(self, name: str) -> "Field":
        """Return the field of this name inside this message."""
        return Field("." + name, self.violations, self)

    def element(self, key: int | str) -> "Field":
        """Return the element of this list or map."""
        return Field(f"[{key}]", self.violations, self)

    def refuse(self, description: str) -> None:
        """Record that the field is wrong; reading goes on, so that the next one is found too."""
        self.violations.append(FieldViolation(self.path, description))

    def check(self, valid: bool, description: str) -> bool:
        """Refuse the field unless `valid`; returns `valid`."""
        if not valid:
            self.refuse(description)
        return valid

    def check_set(self, text: str) -> bool:
        """Refuse an empty text."""
        return self.check(text != "", "must not be empty")

    def check_between(self, number: int, lowest: int, highest: int) -> bool:
        """Refuse a number outside the closed range."""
        return self.check(lowest <= number <= highest, f"must be {lowest} to {highest}, not {number}")

    def check_finite(self, number: float) -> bool:
        """Refuse NaN and the infinities."""
        return self.check(math.isfinite(number), f"must be a finite number, not {number}")


@contextmanager
def collecting(path: str = "") -> Iterator[Field]:
    """Give the field to read from; raise `InvalidInput` with all violations when the block ends."""
    field = Field(path, [])
    yield field
    if field.violations:
        raise InvalidInput(*field.violations)
