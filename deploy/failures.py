"""Expected errors: those that end in one clear line instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from shards.errors import HeadraceError


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let the first expected error out of the group that a `TaskGroup` has put it in."""
    try:
        yield
    except BaseExceptionGroup as group:
        expected = group.subgroup(HeadraceError)
        if expected is None:
            raise
        raise _first(expected) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
