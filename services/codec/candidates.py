"""Candidates: packed columns of floats, moved as blocks of memory and never number by number."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from protos.headrace.v1 import types_pb2 as pb
from services.codec.violations import Field, collecting
from shards.candidates import Candidates, Floats

_VALUES_TAG = bytes([pb.FloatColumn.VALUES_FIELD_NUMBER << 3 | 2])
"""Field key of the packed `values` on the wire: number and wire type LEN, as the encoding guide has it."""


def candidates_to_proto(candidates: Candidates) -> pb.Candidates:
    """Return the message of candidates; NaN is kept."""
    message = pb.Candidates(item_ids=candidates.item_ids)
    for name, values in candidates.columns.items():
        # Protobuf copies a packed field in one piece when it parses, but float by float when
        # a sequence is assigned: 2 µs instead of 140 µs for 5,000 values.
        message.columns.add(name=name).MergeFromString(_packed(values))
    for name, texts in candidates.attributes.items():
        message.attributes.add(name=name, values=texts)
    return message


def _packed(values: Floats) -> bytes:
    block = values.astype("<f4", copy=False).tobytes()
    return _VALUES_TAG + _varint(len(block)) + block if block else b""


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def candidates_from_proto(message: pb.Candidates) -> Candidates:
    """Return the candidates; raises `InvalidInput` with every field at fault, below "candidates"."""
    with collecting("candidates") as field:
        return read_candidates(message, field)


def read_candidates(message: pb.Candidates, field: Field, *, at_most: int | None = None) -> Candidates:
    """Return the candidates, NaN kept.

    Refuses more than `at_most` items, empty or repeated ids, columns without a name, of another
    length or with infinities, and attributes longer than the list.
    """
    item_ids = tuple(message.item_ids)
    ids = field.child("item_ids")
    if at_most is not None:
        ids.check(len(item_ids) <= at_most, f"must hold at most {at_most} items, not {len(item_ids)}")
    unique = set(item_ids)
    ids.check("" not in unique, "must not hold an empty id")
    if len(unique) != len(item_ids):
        ids.refuse(f"must not repeat {_most_repeated(item_ids)!r}")
    return Candidates(
        item_ids=item_ids,
        columns=_read_columns(message.columns, field.child("columns"), len(item_ids)),
        attributes=_read_attributes(message.attributes, field.child("attributes"), len(item_ids)),
    )


def _most_repeated(item_ids: Iterable[str]) -> str:
    return Counter(item_ids).most_common(1)[0][0]


def _well_formed(columns: Mapping[str, Floats], messages: int, count: int) -> bool:
    """Return whether there is nothing to refuse, as is nearly always so: one look at all columns."""
    if len(columns) < messages or "" in columns or any(len(values) != count for values in columns.values()):
        return False
    return not columns or not np.isinf(np.concatenate(list(columns.values()))).any()


def _read_columns(messages: Sequence[pb.FloatColumn], field: Field, count: int) -> dict[str, Floats]:
    columns = {message.name: np.array(message.values, dtype=np.float32) for message in messages}
    if _well_formed(columns, len(messages), count):
        return columns
    columns = {}
    for i, message in enumerate(messages):
        _read_name(message.name, field.element(i).child("name"), columns)
        values = np.array(message.values, dtype=np.float32)
        at = field.element(i).child("values")
        at.check(not np.isinf(values).any(), "must not hold an infinity")
        if at.check(len(values) == count, f"must be as long as item_ids, {count}, not {len(values)}"):
            columns[message.name] = values
    return columns


def _read_attributes(
    messages: Iterable[pb.TextColumn], field: Field, count: int
) -> dict[str, tuple[str, ...]]:
    attributes: dict[str, tuple[str, ...]] = {}
    for i, message in enumerate(messages):
        _read_name(message.name, field.element(i).child("name"), attributes)
        values = tuple(message.values)
        field.element(i).child("values").check(
            len(values) <= count, f"must not be longer than item_ids, {count}, not {len(values)}"
        )
        attributes[message.name] = values
    return attributes


def _read_name(name: str, field: Field, known: Iterable[str]) -> None:
    field.check_set(name)
    field.check(name not in known, f"must not repeat {name!r}")
