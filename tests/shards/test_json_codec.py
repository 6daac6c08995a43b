import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.json_codec import from_json, parse, plain, render, to_json
from shards.search_context import RawValue


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    pair: tuple[int, str] = (1, "a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    flag: bool = False
    weight: float = 0.5
    colour: Colour = Colour.RED
    side: Literal["left", "right"] = "left"
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    raw: Mapping[str, RawValue] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(Inner, pair=st.tuples(st.integers(), st.text()))
OUTERS = st.builds(
    Outer,
    name=st.text(),
    flag=st.booleans(),
    side=st.sampled_from(["left", "right"]),
    weight=FINITE,
    maybe=st.none() | INNERS,
    many=st.lists(INNERS, max_size=3).map(tuple),
    raw=st.dictionaries(
        st.text(), st.text() | FINITE | st.lists(st.text(), max_size=2).map(tuple), max_size=3
    ),
    free=st.just({"a": [1, None, {"b": True}]}),
)


@given(OUTERS)
def test_survives_json_exactly(value: Outer) -> None:
    data = render(to_json(value))
    again = from_json(Outer, parse(data))
    assert again == value
    assert render(to_json(again)) == data


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "Outer is not an object"),
        ({}, "Outer has no field 'name'"),
        ({"name": "x", "nmae": "y"}, "Outer has an unknown field 'nmae'"),
        ({"name": None}, r"Outer\.name is not a str"),
        ({"name": "x", "flag": 1}, r"Outer\.flag is not a bool"),
        ({"name": "x", "weight": True}, r"Outer\.weight is not a float"),
        ({"name": "x", "side": "up"}, r"Outer\.side must be one of left, right, not 'up'"),
        ({"name": "x", "side": [1]}, r"Outer\.side must be one of"),
        ({"name": "x", "colour": "blue"}, r"Outer\.colour: 'blue'"),
        ({"name": "x", "maybe": {"pair": [1]}}, r"Outer\.maybe\.pair has 1 values, not 2"),
        ({"name": "x", "many": [{}, {"pair": [1, 2]}]}, r"Outer\.many\[1\]\.pair\[1\] is not a str"),
        ({"name": "x", "many": {}}, r"Outer\.many is not a list"),
        ({"name": "x", "raw": {"k": None}}, r"Outer\.raw\['k'\] is not a str"),
        ({"name": "x", "raw": []}, r"Outer\.raw is not an object"),
    ],
)
def test_problems_say_where(document: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_json(Outer, document)


def test_plain_gives_each_field_its_own_type() -> None:
    loose: Any = [Inner(), Inner()]
    value = plain(Outer(name="x", weight=1, many=loose, free={"a": np.float32(0.5)}))
    assert type(value.weight) is float
    assert value.many == (Inner(), Inner())
    assert value.free == {"a": 0.5}


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="set has no JSON form"):
        to_json({1, 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(float("inf"))
    with pytest.raises(ValueError, match="Infinity is not a JSON number"):
        parse(b"[Infinity]")
