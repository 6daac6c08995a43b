"""Bytes that are almost what somebody meant: cut off, altered, doubled, with numbers at their limits."""

import random

_LIMITS = [
    value.to_bytes(size, "little", signed=False)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
]
_WORDS = [
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"[",
    b"{",
    b'"',
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"9" * 400,
]
_WORDS += [b"[" * 5_000, b'{"a":' * 5_000, b"true", b"../../etc/passwd"]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to six changes."""
    data = seed
    for _ in range(rng.randint(1, 6)):
        data = _changed(data, rng)
    return data


def _changed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    match rng.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 2:
            new = rng.choice(_LIMITS)
            return data[:at] + new + data[at + len(new) :]
        case 3:
            return data[:at] + rng.choice(_WORDS) + data[at:]
        case 4:
            end = min(len(data), at + rng.randint(1, 64))
            return data[:end] + data[at:end] * rng.randint(1, 4) + data[end:]
        case 5:
            return data[:at] + data[at + rng.randint(1, 64) :]
        case _:
            return bytes(rng.randrange(256) for _ in range(rng.randint(0, 200)))
