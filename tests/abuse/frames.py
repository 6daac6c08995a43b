"""HTTP/2 by hand, for what no client library would send (RFC 9113; header blocks as of RFC 7541)."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION, WINDOW_UPDATE = 0, 1, 3, 4, 6, 9, 8
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, says: int | None = None) -> bytes:
    """Return a frame, which `says` another length where that is given."""
    size = len(payload) if says is None else says
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call_headers(path: str, **more: str) -> bytes:
    """Return the header block of a gRPC call, all literal."""
    fields = {"te": "trailers", **{name.replace("_", "-"): value for name, value in more.items()}}
    block = b"\x83\x86\x04" + _text(path) + b"\x01" + _text("localhost")
    block += b"\x0f\x10" + _text("application/grpc")
    return block + b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, size = len(data) - 127, [127]
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes((*size, rest)) + data


def message(data: bytes, *, compressed: bool = False, says: int | None = None) -> bytes:
    """Return a gRPC message behind its prefix."""
    return struct.pack(">BI", compressed, len(data) if says is None else says) + data


def connected(address: str, *, greet: bool = True, timeout_s: float = 5.0) -> socket.socket:
    """Return a connection, which says hello as HTTP/2 does."""
    host, _, port = address.rpartition(":")
    made = socket.create_connection((host, int(port)), timeout=timeout_s)
    if greet:
        made.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return made
