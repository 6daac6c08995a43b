"""Searches from a process of its own, at a rate or so many at once: `python -m tests.bench.search_load`.

It takes orders on standard input, a line of JSON each, and answers each with what became of the searches.
An open loop sends a search when its time has come, whatever became of those before; a generator that is
late with one sends it all the same, and says how late it was.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from deploy.settings import PROJECT_ROOT
from protos.headrace.v1 import search_service_pb2 as pb
from tests.bench.http2_connection import REFUSED_S, Http2Connection, Reply

SEARCH = "/headrace.v1.SearchService/Search"

_CONNECTIONS = 8
OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8
LOST = -1
"""The code of a search that ended without a status."""

_PATIENCE = 2.0
"""Times the deadline, what is waited for the last answers: that a server is late shall show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send: `in_flight` at once for `seconds`, or at `rates`, pairs of searches/s and seconds."""

    address: str
    surface: str
    queries: Sequence[str]
    deadline_s: int
    in_flight: int = 0
    seconds: float = 0.0
    rates: Sequence[tuple[float, float]] = ()
    starts_s: float = 0.0
    """Monotonic second from which on to send; the clock is that of the whole machine."""


@dataclass(slots=True, kw_only=True)
class Sent:
    """Columns, a row for each search: when it was sent (monotonic second), what it took, how it ended."""

    sent_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    code: list[int] = field(default_factory=list)
    complete: list[bool] = field(default_factory=list)
    cpu_s: float = 0.0
    """Processor time that it took to send and receive."""

    def add(self, others: Self) -> None:
        """Append the rows of another generator."""
        for name in ("sent_s", "took_s", "late_s", "code", "complete"):
            getattr(self, name).extend(getattr(others, name))
        self.cpu_s += others.cpu_s


class Generators:
    """Processes that send searches together, each its share."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.search_load"]
        self._processes = [
            subprocess.Popen(
                command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(self._count)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.communicate()

    def send(self, order: Order) -> Sent:
        """Return what became of the searches of all generators, each of which has queries of its own."""
        share = {
            "in_flight": order.in_flight // self._count,
            "rates": [(rate / self._count, seconds) for rate, seconds in order.rates],
            "starts_s": time.monotonic() + 0.5,
        }
        for number, process in enumerate(self._processes):
            assert process.stdin is not None
            queries = order.queries[number :: self._count]
            process.stdin.write(json.dumps(asdict(order) | share | {"queries": queries}) + "\n")
            process.stdin.flush()
        sent = Sent()
        for process in self._processes:
            assert process.stdout is not None
            sent.add(Sent(**json.loads(process.stdout.readline())))
        return sent


@dataclass(frozen=True, slots=True)
class _Search:
    """A search that is under way; `done` gets its code when it ends, where somebody waits for that."""

    due_s: float
    sent_s: float
    done: "asyncio.Future[int] | None"


class Generator:
    """Sends what one order asks for, over connections of its own while its `with` block runs."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests = [
            pb.SearchRequest(surface=order.surface, query=query).SerializeToString()
            for query in order.queries
        ]
        self._count = 0
        self._under_way: dict[tuple[Http2Connection, int], _Search] = {}
        self._rows: list[tuple[_Search, float, int, bytes]] = []

    def __enter__(self) -> Self:
        loop, order = asyncio.get_running_loop(), self._order
        self._connections = [
            Http2Connection(order.address, SEARCH, timeout_s=order.deadline_s) for _ in range(_CONNECTIONS)
        ]
        for connection in self._connections:
            loop.add_reader(connection.fileno(), self._receive, connection)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            asyncio.get_running_loop().remove_reader(connection.fileno())
            connection.close()

    async def send(self) -> Sent:
        """Send all, and return when the last has ended or has been waited for long enough."""
        await asyncio.sleep(self._order.starts_s - time.monotonic())
        cpu_s = time.process_time()
        if self._order.in_flight:
            await self._so_many_at_once()
        else:
            await self._at_rates()
        return self._sent(time.process_time() - cpu_s)

    async def _so_many_at_once(self) -> None:
        until_s = self._order.starts_s + self._order.seconds

        async def again_and_again() -> None:
            loop = asyncio.get_running_loop()
            while time.monotonic() < until_s:
                done: asyncio.Future[int] = loop.create_future()
                self._search(time.monotonic(), done)
                if await done != OK:
                    await asyncio.sleep(REFUSED_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._order.in_flight):
                group.create_task(again_and_again())

    async def _at_rates(self) -> None:
        due_s = self._order.starts_s
        for rate, seconds in self._order.rates:
            until_s = due_s + seconds
            while due_s < until_s:
                # A pass of the loop in any case, to take the answers.
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self._search(due_s)
                due_s += 1 / rate
        late_s = time.monotonic() + _PATIENCE * self._order.deadline_s
        while self._under_way and time.monotonic() < late_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for search in self._under_way.values():
            self._rows.append((search, time.monotonic() - search.sent_s, LOST, b""))

    def _search(self, due_s: float, done: "asyncio.Future[int] | None" = None) -> None:
        connection = self._connections[self._count % len(self._connections)]
        request = self._requests[self._count % len(self._requests)]
        self._count += 1
        search = _Search(due_s, time.monotonic(), done)
        self._under_way[connection, connection.send(request)] = search

    def _receive(self, connection: Http2Connection) -> None:
        for reply in connection.receive():
            self._note(self._under_way.pop((connection, reply.stream)), reply)

    def _note(self, search: _Search, reply: Reply) -> None:
        code = LOST if reply.code is None else reply.code
        self._rows.append((search, time.monotonic() - search.sent_s, code, reply.message))
        if search.done is not None:
            search.done.set_result(code)

    def _sent(self, cpu_s: float) -> Sent:
        """Return the rows; an answer that comes after the deadline is none."""
        sent = Sent(cpu_s=cpu_s)
        for search, took_s, code, message in self._rows:
            in_time = took_s <= self._order.deadline_s
            sent.sent_s.append(search.sent_s)
            sent.took_s.append(took_s)
            sent.late_s.append(search.sent_s - search.due_s)
            sent.code.append(code if in_time or code not in (OK, LOST) else DEADLINE_EXCEEDED)
            sent.complete.append(
                code == OK and in_time and pb.SearchResponse.FromString(message).coverage.complete
            )
        return sent


async def main() -> None:
    """Obey orders until there are no more."""
    gc.freeze()
    while line := await asyncio.to_thread(sys.stdin.readline):
        with Generator(Order(**json.loads(line))) as generator:
            sent = await generator.send()
        sys.stdout.write(json.dumps(asdict(sent)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
