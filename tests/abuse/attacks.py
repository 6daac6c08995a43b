"""What callers may do to a router: each attack returns when it is over, and says what it did.

None asserts anything: whoever runs them looks at the router's health, memory and other callers.
"""

import contextlib
import random
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc
from tests.abuse.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    connected,
    frame,
    message,
)

SEARCH = "/headrace.v1.SearchService/Search"
Attack = Callable[[str, random.Random], str]


@contextmanager
def _many(address: str, count: int, *, greet: bool = True) -> Iterator[list[socket.socket]]:
    """Give as many connections as can be had, up to `count`."""
    with ExitStack() as exits:
        made = []
        for _turn in range(count):
            try:
                made.append(exits.enter_context(connected(address, greet=greet)))
            except OSError:
                break
        yield made


def _send(to: socket.socket, data: bytes) -> bool:
    """Send what the other side takes; false where it has hung up."""
    try:
        to.sendall(data)
    except OSError:
        return False
    return True


def slow_clients(address: str, rng: random.Random) -> str:
    """Say hello a byte at a time, and a request a byte at a time."""
    request = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, call_headers(SEARCH))
    with _many(address, 200, greet=False) as made:
        for at in range(min(len(request), 40)):
            for each in made:
                _send(each, request[at : at + 1])
        half = rng.sample(made, len(made) // 2)
        for each in half:
            _send(each, request[40:])
            _send(each, frame(DATA, 0, 1, message(b"", says=1 << 20)))
    return f"{len(made)} slow clients"


def half_open(address: str, _: random.Random) -> str:
    """Connect and say nothing, or hello and nothing more, or half a header."""
    with _many(address, 200, greet=False) as silent, _many(address, 200) as greeted:
        for each in greeted[::2]:
            _send(each, frame(HEADERS, 0, 1, call_headers(SEARCH)[:20]))
    return f"{len(silent) + len(greeted)} half-open connections"


def huge_metadata(address: str, _: random.Random) -> str:
    """Send headers of a megabyte, and header frames without end."""
    refused = 0
    with grpc.insecure_channel(address, options=_OWN) as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        for size in (20_000, 200_000, 1_000_000):
            with contextlib.suppress(grpc.RpcError):
                stub.Search(_asked(), timeout=5, metadata=(("x-junk", "a" * size),))
                continue
            refused += 1
    with _many(address, 4) as made:
        for each in made:
            _send(each, frame(HEADERS, 0, 1, call_headers(SEARCH)))
            for _turn in range(500):
                if not _send(each, frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x00" + b"b" * 127)):
                    break
    return f"{refused} of 3 huge headers refused"


def huge_messages(address: str, _: random.Random) -> str:
    """Send messages over the limit, and prefixes that promise 4 GB."""
    refused = 0
    with grpc.insecure_channel(address, options=_OWN) as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        for _turn in range(2):
            with contextlib.suppress(grpc.RpcError):
                stub.Search(_asked(query="a" * (40 << 20)), timeout=10)
                continue
            refused += 1
    with _many(address, 20) as made:
        for each in made:
            _send(each, frame(HEADERS, END_HEADERS, 1, call_headers(SEARCH)))
            _send(each, frame(DATA, 0, 1, message(b"a" * 10_000, says=2**32 - 1)))
    return f"{refused} of 2 huge messages refused"


def bombs(address: str, _: random.Random) -> str:
    """Send half a gigabyte of zeros as half a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _turn in range(512)) + packer.flush()
    with _many(address, 3) as made:
        for each in made:
            head = call_headers(SEARCH, grpc_encoding="gzip")
            _send(each, frame(HEADERS, END_HEADERS, 1, head))
            data = message(packed, compressed=True)
            for at in range(0, len(data), 16_384):
                last = END_STREAM if at + 16_384 >= len(data) else 0
                if not _send(each, frame(DATA, last, 1, data[at : at + 16_384])):
                    break
            with contextlib.suppress(OSError):
                each.settimeout(3.0)
                each.recv(4096)
    return f"{len(made)} bombs of {len(packed) >> 10} KB"


def malformed(address: str, rng: random.Random) -> str:
    """Send frames that mean nothing: noise, wrong lengths, wrong order, broken header blocks."""
    with _many(address, 100) as made:
        for each in made:
            _send(each, _nonsense(rng))
            with contextlib.suppress(OSError):
                each.settimeout(0.2)
                each.recv(4096)
    with _many(address, 50, greet=False) as raw:
        for each in raw:
            _send(each, rng.choice((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", rng.randbytes(300))))
    return f"{len(made) + len(raw)} connections of nonsense"


def _nonsense(rng: random.Random) -> bytes:
    choices = (
        frame(rng.randrange(256), rng.randrange(256), rng.randrange(2**31), rng.randbytes(rng.randrange(99))),
        frame(SETTINGS, 0, 0, b"\x00" * 5),
        frame(HEADERS, END_HEADERS, 1, rng.randbytes(200)),
        frame(HEADERS, END_HEADERS, 2, call_headers(SEARCH)),
        frame(DATA, 0, 7, b"for nobody"),
        frame(DATA, 0, 0, b"for the connection"),
        frame(HEADERS, END_HEADERS, 1, b"", says=2**24 - 1),
        frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
        frame(CONTINUATION, END_HEADERS, 1, b"\x88"),
        PREFACE,
    )
    return rng.choice(choices)


def floods(address: str, _: random.Random) -> str:
    """Open streams and reset them at once, and send pings and settings without waiting for the answers."""
    opened = 0
    with _many(address, 4) as made:
        for each in made:
            for stream in range(1, 4_000, 2):
                opening = frame(HEADERS, END_HEADERS, stream, call_headers(SEARCH))
                if not _send(each, opening + frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x08")):
                    break
                opened += 1
    with _many(address, 4) as made:
        for each in made:
            for _turn in range(2_000):
                if not _send(each, frame(PING, 0, 0, bytes(8)) + frame(SETTINGS, 0, 0)):
                    break
    return f"{opened} streams opened and reset"


def unfinished_calls(address: str, _: random.Random) -> str:
    """Open thousands of calls on a few connections and never send their requests."""
    opened = 0
    with _many(address, 4) as made:
        for each in made:
            for stream in range(1, 4_000, 2):
                if not _send(each, frame(HEADERS, END_HEADERS, stream, call_headers(SEARCH))):
                    break
                opened += 1
    return f"{opened} calls opened and left"


def reflection_scan(address: str, rng: random.Random) -> str:
    """Ask reflection for everything, again and again, and for what does not exist."""
    asked = 0

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        for _turn in range(300):
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            name = f"headrace.v1.{rng.randbytes(rng.randrange(60)).hex()}"
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            yield reflection_pb2.ServerReflectionRequest(file_by_filename="../" * rng.randrange(50))

    with grpc.insecure_channel(address, options=_OWN) as channel, contextlib.suppress(grpc.RpcError):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        for _answer in stub.ServerReflectionInfo(requests(), timeout=20):
            asked += 1
    return f"{asked} answers of reflection"


def connections(address: str, _: random.Random, *, count: int = 10_000) -> str:
    """Open thousands of connections at once."""
    with _many(address, count) as made:
        held = len(made)
    return f"{held} connections at once"


ATTACKS: Mapping[str, Attack] = {
    "slow clients": slow_clients,
    "half-open connections": half_open,
    "huge metadata": huge_metadata,
    "huge messages": huge_messages,
    "compressed bombs": bombs,
    "malformed frames": malformed,
    "floods": floods,
    "unfinished calls": unfinished_calls,
    "reflection scan": reflection_scan,
    "connections": connections,
}

_OWN = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", 1 << 30),
    ("grpc.max_metadata_size", 1 << 22),
    ("grpc.enable_retries", 0),
]


def _asked(query: str = "mug") -> search_service_pb2.SearchRequest:
    return search_service_pb2.SearchRequest(surface="gifts", query=query)
