"""What kinds of feature refuse: ValueError says which part is wrong."""

import itertools
import math
import re

NOW_PARTS = ("hour", "weekday", "day", "month")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_source(name: str, source: str) -> None:
    """Refuse a bad name, and a source that is none."""
    check_name(name)
    root, _, leaf = source.partition(".")
    known = source in ("query", "user_id") or (root in ("user", "context", "item") and leaf)
    if not (known or (root == "now" and leaf in NOW_PARTS)):
        raise ValueError(
            f"source {source!r} of {name!r} is none of query, user_id, user.*, context.*, item.*, now.*"
        )


def check_item_source(name: str, source: str) -> None:
    """Refuse a source that is no column of the items."""
    check_source(name, source)
    if not source.startswith("item."):
        raise ValueError(f"source {source!r} of {name!r} must be item.*")


def check_name(name: str) -> None:
    """Refuse a name that no keyword argument could have."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"feature name {name!r} must be lower-case letters, digits and '_'")


def check_scale(mean: float, std: float) -> None:
    """Refuse a scale that would give NaN."""
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise ValueError("mean must be finite and std above 0")


def check_positive(what: str, value: int) -> None:
    """Refuse a count below 1."""
    if value < 1:
        raise ValueError(f"{what} must be at least 1, not {value}")


def check_rising(what: str, boundaries: tuple[float, ...]) -> None:
    """Refuse boundaries that do not rise."""
    if not all(a < b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"{what} must rise")


def check_distinct(vocabulary: tuple[str, ...]) -> None:
    """Refuse a vocabulary with a value twice."""
    if len(set(vocabulary)) != len(vocabulary):
        raise ValueError("vocabulary holds a value twice")
