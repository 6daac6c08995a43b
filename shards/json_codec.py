"""Frozen dataclasses to JSON and back, driven by their type hints.

Understands str, int, float, bool, None, literals, enums, tuples, `Mapping[str, …]`, unions, `Any` and
dataclasses of these. Every problem is a ValueError that says where in the document it lies.
"""

import enum
import functools
import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


def render(document: object) -> bytes:
    """Return the one rendering of a JSON document: sorted keys, two spaces, UTF-8; NaN is refused."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def parse(data: bytes) -> Any:
    """Return the document in `data`; ValueError where it is not UTF-8 JSON or has NaN or a key twice."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def to_json(value: object) -> Any:
    """Return `value` as what `json` can write; defaults are written out, so that they may change later."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{type(value).__name__} has no JSON form")


def from_json(kind: type[T], document: object, where: str = "") -> T:
    """Return the `kind` that `document` describes; unknown and missing fields are a ValueError."""
    return cast(T, _decode(kind, document, where or kind.__name__))


def plain(value: T) -> T:
    """Return the dataclass as it would read back: floats for ints and tuples for lists, by its type hints."""
    return from_json(type(value), to_json(value))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _decode(kind: Any, value: Any, where: str) -> object:
    if kind is Any or kind is object:
        return value
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        return _decode_union(get_args(kind), value, where)
    if origin is Literal:
        return _decode_literal(get_args(kind), value, where)
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, where)
    if origin is Mapping:
        return _decode_mapping(get_args(kind)[1], value, where)
    if is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _decode_enum(kind, value, where)
    return _decode_scalar(kind, value, where)


def _decode_enum(kind: type[enum.Enum], value: Any, where: str) -> object:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _decode_literal(choices: tuple[object, ...], value: Any, where: str) -> object:
    if not isinstance(value, str | int) or value not in choices:
        raise ValueError(f"{where} must be one of {', '.join(map(str, choices))}, not {value!r}")
    return value


def _decode_scalar(kind: Any, value: Any, where: str) -> object:
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is types.NoneType and value is None:
        return None
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is not a {kind.__name__}")


def _decode_union(members: tuple[Any, ...], value: Any, where: str) -> object:
    problem: ValueError | None = None
    for member in members:
        try:
            return _decode(member, value, where)
        except ValueError as error:
            if member is not types.NoneType:
                problem = problem or error
    raise ValueError(str(problem))


def _decode_tuple(members: tuple[Any, ...], value: Any, where: str) -> object:
    if not isinstance(value, list):
        raise ValueError(f"{where} is not a list")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise ValueError(f"{where} has {len(value)} values, not {len(members)}")
    return tuple(
        _decode(kind, item, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(members, value, strict=True))
    )


def _decode_mapping(kind: Any, value: Any, where: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    return {key: _decode(kind, item, f"{where}[{key!r}]") for key, item in value.items()}


def _decode_dataclass(kind: Any, value: Any, where: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    hints, required = _shape(kind)
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{where} has an unknown field {unknown[0]!r}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{where} has no field {missing[0]!r}")
    decoded = {name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**decoded)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


@functools.cache
def _shape(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the type of each field, and the fields without a default."""
    hints = get_type_hints(kind)
    own = fields(kind)
    required = frozenset(f.name for f in own if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: hints[f.name] for f in own}, required
