"""Single settings of a recipe changed by path, as the command line spells them: "two_tower.fit.epochs=3"."""

import ast
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from shards.errors import FieldViolation, InvalidInput
from training.recipe import Recipe


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe with each "path.to.setting=value" applied, in order.

    Raises `InvalidInput` naming the override whose path is unknown or whose value does not fit.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise _refused(override, "must be path.to.setting=value")
        try:
            recipe = _replaced(recipe, path.split("."), text, override)
        except (ValueError, TypeError) as error:
            raise _refused(override, str(error)) from error
    return recipe


def _replaced(value: Any, path: Sequence[str], text: str, override: str) -> Any:
    head, *rest = path
    names = [f.name for f in fields(value)]
    if head not in names:
        raise _refused(override, f"{head!r} is no setting; there are {', '.join(names)}")
    old = getattr(value, head)
    if rest and not is_dataclass(old):
        raise _refused(override, f"{head!r} has no settings below it")
    if not rest and is_dataclass(old):
        raise _refused(override, f"{head!r} is a group of settings: {', '.join(f.name for f in fields(old))}")
    new = _replaced(old, rest, text, override) if rest else _parsed(text, get_type_hints(type(value))[head])
    return replace(value, **{head: new})


def _parsed(text: str, kind: Any) -> Any:
    """Return the value that `text` spells for a setting of this type. Raises ValueError."""
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if kind in (int, float):
        return kind(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{text!r} is no Python literal") from error
    texts_only = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if kind != tuple[str, ...] or not texts_only:
        raise ValueError("only texts, numbers, true, false and tuples of texts can be set")
    return value


def _refused(override: str, problem: str) -> InvalidInput:
    return InvalidInput(FieldViolation("set", f"{override!r}: {problem}"))
