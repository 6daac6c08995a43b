"""A gRPC connection that costs its process next to nothing: unary calls of one method, sent as ready bytes.

A load generator that shares the cores with what it measures must not take much of them. A client of
`grpc.aio` takes as much processor time a call as a fast server does; this one writes two frames and looks
for the end of the answer. It speaks just enough HTTP/2 (RFC 9113, gRPC over HTTP/2) for servers on the same
host: headers are sent without a dynamic table and such a table is denied to the server, so that trailers can
be read without a decoder.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535
_FRAME_HEAD = 9
_LARGEST_FRAME = 16_384
_READ_BYTES = 1 << 18
REFUSED_S = 0.05
"""For how long a caller in a closed loop rests once it was refused, as nobody sane asks again at once."""

_OK = b"grpc-status\x010"
"""The literal field that a server without a table sends for the status OK."""


@dataclass(slots=True)
class Reply:
    """One answer: the payload, a gRPC message behind five bytes of prefix, and the raw trailers."""

    stream: int
    payload: bytes = b""
    trailers: bytes = b""

    @property
    def ok(self) -> bool:
        """Return whether the status is OK."""
        return _OK in self.trailers

    @property
    def code(self) -> int | None:
        """Return the number of the status, None of a call that was broken off without one."""
        _, name, value = self.trailers.partition(b"grpc-status")
        return int(value[1 : 1 + value[0]]) if name else None

    @property
    def message(self) -> bytes:
        """Return the serialised message."""
        return self.payload[5:]


@dataclass(slots=True, eq=False)
class Http2Connection:
    """Calls `path` at HOST:PORT; has a `fileno` for selectors. ConnectionError when the server ends it."""

    address: str
    path: str
    timeout_s: int = 10
    _socket: socket.socket = field(init=False)
    _headers: bytes = field(init=False)
    _buffer: bytearray = field(init=False, default_factory=bytearray)
    _next_stream: int = field(init=False, default=1)
    _open: dict[int, Reply] = field(init=False, default_factory=dict)
    _window: int = field(init=False, default=_FIRST_WINDOW)

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = _request_headers(self.address, self.path, self.timeout_s)
        no_table, no_push, window = struct.pack(">HI", 1, 0), struct.pack(">HI", 2, 0), _LARGEST_WINDOW
        settings = no_table + no_push + struct.pack(">HI", 4, window)
        more = struct.pack(">I", window - _FIRST_WINDOW)
        self._socket.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, more)
        )

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, message: bytes) -> int:
        """Send a call and return its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        data = struct.pack(">BI", 0, len(message)) + message
        assert len(data) <= _LARGEST_FRAME, "a request must fit one frame"
        self._window -= len(data)
        assert self._window >= 0, "the server gives no more room for requests"
        self._open[stream] = Reply(stream)
        self._socket.sendall(
            _frame(_HEADERS, _END_HEADERS, stream, self._headers) + _frame(_DATA, _END_STREAM, stream, data)
        )
        return stream

    def receive(self) -> list[Reply]:
        """Wait for bytes and return the answers that they end."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError(f"{self.address} closed the connection")
        self._buffer += data
        return [reply for frame in self._frames() for reply in self._take(*frame)]

    def wait(self) -> Reply:
        """Wait for the one answer that is out."""
        while not (replies := self.receive()):
            pass
        return replies[0]

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield kind, flags, stream and payload of every whole frame."""
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _FRAME_HEAD:
            size = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            end = at + _FRAME_HEAD + size
            if len(buffer) < end:
                break
            kind, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            yield kind, flags, stream, bytes(buffer[at + _FRAME_HEAD : end])
            at = end
        del buffer[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> Iterator[Reply]:
        """Take note of a frame; yields the answer that it ends."""
        if kind in (_DATA, _HEADERS):
            reply = self._open[stream]
            if kind == _DATA:
                reply.payload += payload
            else:
                reply.trailers = payload
        elif kind == _RST_STREAM:
            # Behind the end of an answer it only says that the server reads no more of the request.
            self._open.get(stream, Reply(stream)).trailers = b"reset"
        elif kind == _GOAWAY:
            raise ConnectionError(f"{self.address} goes away: {payload[8:]!r}")
        else:
            self._answer(kind, flags, stream, payload)
        ends = kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM)
        if ends and stream in self._open:
            yield self._open.pop(stream)

    def _answer(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _request_headers(authority: str, path: str, timeout_s: int) -> bytes:
    """Return the header block of every call: two indexed fields, the others literal and without index."""
    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + _text(path),
            b"\x01" + _text(authority),
            b"\x0f\x10" + _text("application/grpc"),
            b"\x00" + _text("te") + _text("trailers"),
            b"\x00" + _text("grpc-timeout") + _text(f"{timeout_s}S"),
        )
    )


def _text(value: str) -> bytes:
    """Return a string literal without Huffman coding; shorter than 127 bytes."""
    assert len(value) < 127
    return bytes((len(value),)) + value.encode()
