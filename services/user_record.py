"""One user as the bytes that the user store keeps.

    magic "HRU1" | crc32 of the rest | sizes | timestamps int64[n] | action codes uint16[n] | action names
    | item ids | features as JSON

All little-endian; names and ids are joined by NUL. Nothing is pickled.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from services.user_history import JOINT, features_from_json, features_to_json
from shards.search_context import History, UserState

_MAGIC = b"HRU1"
_HEAD = struct.Struct("<4sI")
_SIZES = struct.Struct("<III")


class MalformedRecord(ValueError):
    """The bytes are no record of a user."""


def encode_user(user: UserState) -> bytes:
    """Return the record of a user, without the id; the user has passed `services.user_history.checked`."""
    history = user.history
    names = {action: code for code, action in enumerate(dict.fromkeys(history.actions))}
    joined_names, joined_items = JOINT.join(names).encode(), JOINT.join(history.item_ids).encode()
    body = b"".join((
        _SIZES.pack(len(history.item_ids), len(joined_names), len(joined_items)),
        np.array(history.timestamps_ms, dtype="<i8").tobytes(),
        np.array([names[action] for action in history.actions], dtype="<u2").tobytes(),
        joined_names,
        joined_items,
        features_to_json(user.features),
    ))  # fmt: skip
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def decode_user(user_id: str, record: bytes, *, now_ms: int, limit: int) -> UserState:
    """Return the user with the newest `limit` events strictly before `now_ms`.

    Raises `MalformedRecord` when the record is truncated or altered.
    """
    if len(record) < _HEAD.size + _SIZES.size:
        raise MalformedRecord(f"{len(record)} bytes are too few")
    magic, checksum = _HEAD.unpack_from(record)
    body = memoryview(record)[_HEAD.size :]
    if magic != _MAGIC:
        raise MalformedRecord(f"it starts with {magic!r}, not {_MAGIC!r}")
    if zlib.crc32(body) != checksum:
        raise MalformedRecord("its checksum does not match")
    events, names_bytes, items_bytes = _SIZES.unpack_from(body)
    parts = _split(body[_SIZES.size :], (8 * events, 2 * events, names_bytes, items_bytes))
    timestamps_ms = np.frombuffer(parts[0], dtype="<i8")
    end = int(np.searchsorted(timestamps_ms, now_ms, side="left"))
    kept = slice(max(0, end - limit), end)
    names = _words(parts[2])
    history = History(
        item_ids=tuple(_words(parts[3])[kept]),
        actions=tuple(names[code] for code in np.frombuffer(parts[1], dtype="<u2")[kept].tolist()),
        timestamps_ms=tuple(timestamps_ms[kept].tolist()),
    )
    return UserState(user_id=user_id, features=features_from_json(bytes(parts[4])), history=history)


def _split(body: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    parts = []
    for size in sizes:
        parts.append(body[:size])
        body = body[size:]
    return [*parts, body]


def _words(joined: memoryview) -> list[str]:
    return bytes(joined).decode().split(JOINT)
