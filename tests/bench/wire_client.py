"""Unary gRPC calls with next to no work for each, so that a generator is not what is measured.

HTTP/2 by hand: every request is the same bytes but for its stream, and of a response only its data and its
status are looked at. For benchmarks on one machine only: no TLS, no retries, no proper HPACK. The server is
told to keep no header table (RFC 7541, section 4.2), so that a status comes as plain bytes.
"""

import asyncio
import struct
import time
from collections.abc import Callable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_WINDOW = 2**30
_RENEW_AT = 2**20
_STATUS = b"grpc-status"

OK, RESOURCE_EXHAUSTED = 0, 8
LOST = -1
"""The code of a call that ended without a status: its connection or its stream broke."""

Ended = Callable[[int, bytes], None]
"""Is told the code of the status and the response."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that is not to be indexed, in plain bytes (RFC 7541, section 6.2.2)."""
    assert max(len(name), len(value)) < 127
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


class Request:
    """A request that is sent again and again."""

    def __init__(self, path: str, authority: str, payload: bytes, *, deadline_s: float) -> None:
        fields = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": path.encode(),
            b":authority": authority.encode(),
            b"te": b"trailers",
            b"content-type": b"application/grpc",
            b"grpc-timeout": b"%dm" % round(deadline_s * 1e3),
        }
        self._headers = b"".join(_literal(name, value) for name, value in fields.items())
        self._data = struct.pack(">BI", 0, len(payload)) + payload

    @property
    def size_bytes(self) -> int:
        """Return what flow control counts."""
        return len(self._data)

    def frames(self, stream: int) -> bytes:
        """Return the request on a stream."""
        return _frame(_HEADERS, _END_HEADERS, stream, self._headers) + _frame(
            _DATA, _END_STREAM, stream, self._data
        )


class WireClient(asyncio.Protocol):
    """One connection; calls that are under way by their stream."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._stream = 1
        self._calls: dict[int, tuple[Ended, bytearray]] = {}
        self._window = 65_535
        self._unacknowledged = 0
        self.lost_s: float | None = None

    @property
    def under_way(self) -> int:
        """Return how many calls have not ended."""
        return len(self._calls)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _WINDOW)
        transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        )

    def call(self, request: Request, ended: Ended) -> None:
        """Send a request; `ended` is told what becomes of it, in this very call where nothing can."""
        if self._transport is None or self.lost_s is not None or self._window < request.size_bytes:
            ended(LOST, b"")
            return
        self._window -= request.size_bytes
        self._calls[self._stream] = (ended, bytearray())
        self._transport.write(request.frames(self._stream))
        self._stream += 2

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Give up what is under way."""
        self.lost_s = time.monotonic()
        for stream in list(self._calls):
            self._end(stream, LOST)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take every frame that is whole."""
        self._received += data
        at, received = 0, self._received
        while len(received) - at >= 9:
            length = int.from_bytes(received[at : at + 3], "big")
            if len(received) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, at + 3)
            self._take(kind, flags, stream, bytes(received[at + 9 : at + 9 + length]))
            at += 9 + length
        del received[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA:
            self._renew(len(payload))
            if stream in self._calls:
                self._calls[stream][1].extend(payload)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._end(stream, _status(payload))
        elif kind == _RST_STREAM:
            self._end(stream, LOST)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _GOAWAY:
            self.lost_s = time.monotonic()

    def _renew(self, size_bytes: int) -> None:
        """Let the server send on, now and then."""
        assert self._transport is not None
        self._unacknowledged += size_bytes
        if self._unacknowledged >= _RENEW_AT:
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged)))
            self._unacknowledged = 0

    def _end(self, stream: int, code: int) -> None:
        known = self._calls.pop(stream, None)
        if known is not None:
            ended, response = known
            ended(code, bytes(response[5:]))


def _status(block: bytes) -> int:
    """Return the code in a block of trailers."""
    at = block.find(_STATUS)
    if at < 0:
        return LOST
    length = block[at + len(_STATUS)]
    value = block[at + len(_STATUS) + 1 : at + len(_STATUS) + 1 + length]
    return int(value) if value.isdigit() else LOST
