"""What is asked by altered inputs: a decoder, what it may raise, and inputs that it takes."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from shards.errors import HeadraceError

Decode = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One decoder, what it may raise and inputs that it takes; `native` ones are asked apart."""

    decode: Decode
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[BaseException], ...] = (HeadraceError,)
    native: bool = False

    def check(self, data: bytes) -> None:
        """Decode; raises what is not documented."""
        with suppress(*self.allowed):
            self.decode(data)


def message_target(kind: type[Message], decode: Callable[[Any], object], *seeds: Message) -> Target:
    """Return a target for a request: what is no protobuf at all gRPC refuses before us."""

    def parse(data: bytes) -> object:
        message = kind()
        message.ParseFromString(data)
        return decode(message)

    return Target(
        decode=parse,
        seeds=lambda: [seed.SerializeToString() for seed in seeds or (kind(),)],
        allowed=(HeadraceError, DecodeError),
    )


def file_target(name: str, read: Callable[[Path], object], *seeds: bytes, **options: Any) -> Target:
    """Return a target for a file of this name."""

    def decode(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            return read(path)

    return Target(decode=decode, seeds=lambda: list(seeds), **options)
