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
from tests.bench.wire_client import LOST, OK, Request, WireClient

SEARCH = "/headrace.v1.SearchService/Search"

_CONNECTIONS = 8
_DEADLINE_EXCEEDED = 4
_PATIENCE = 2.0
"""Times the deadline, what is waited for the last answers: that a server is late shall show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send: `in_flight` at once for `seconds`, or at `rates`, pairs of searches/s and seconds."""

    address: str
    surface: str
    queries: Sequence[str]
    deadline_s: float
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
        """Return what became of the searches of all generators."""
        share = {
            "in_flight": order.in_flight // self._count,
            "rates": [(rate / self._count, seconds) for rate, seconds in order.rates],
            "starts_s": time.monotonic() + 0.5,
        }
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(order) | share) + "\n")
            process.stdin.flush()
        sent = Sent()
        for process in self._processes:
            assert process.stdout is not None
            sent.add(Sent(**json.loads(process.stdout.readline())))
        return sent


class Generator:
    """Sends what one order asks for."""

    def __init__(self, order: Order, clients: Sequence[WireClient]) -> None:
        self._order = order
        self._clients = clients
        self._requests = [
            Request(
                SEARCH,
                order.address,
                pb.SearchRequest(surface=order.surface, query=query).SerializeToString(),
                deadline_s=order.deadline_s,
            )
            for query in order.queries
        ]
        self._count = 0
        self._rows: list[tuple[float, float, float, int, bytes]] = []

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
                ended: asyncio.Future[None] = loop.create_future()
                self._search(time.monotonic(), ended)
                await ended

        async with asyncio.TaskGroup() as group:
            for _ in range(self._order.in_flight):
                group.create_task(again_and_again())

    async def _at_rates(self) -> None:
        due_s = self._order.starts_s
        for rate, seconds in self._order.rates:
            until_s = due_s + seconds
            while due_s < until_s:
                wait_s = due_s - time.monotonic()
                if wait_s > 0.0005:
                    await asyncio.sleep(wait_s)
                self._search(due_s)
                due_s += 1 / rate
        late_s = time.monotonic() + _PATIENCE * self._order.deadline_s
        while any(client.under_way for client in self._clients) and time.monotonic() < late_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for client in self._clients:  # What is under way yet has no answer for ever.
            client.close()
        await asyncio.sleep(0)

    def _search(self, due_s: float, done: "asyncio.Future[None] | None" = None) -> None:
        count = self._count
        self._count += 1
        sent_s = time.monotonic()

        def ended(code: int, response: bytes) -> None:
            self._rows.append((sent_s, time.monotonic() - sent_s, sent_s - due_s, code, response))
            if done is not None:
                done.set_result(None)

        client = self._clients[count % len(self._clients)]
        client.call(self._requests[count % len(self._requests)], ended)

    def _sent(self, cpu_s: float) -> Sent:
        """Return the rows; an answer that comes after the deadline is none."""
        sent = Sent(cpu_s=cpu_s)
        for sent_s, took_s, late_s, code, response in self._rows:
            in_time = took_s <= self._order.deadline_s
            sent.sent_s.append(sent_s)
            sent.took_s.append(took_s)
            sent.late_s.append(late_s)
            sent.code.append(code if in_time or code not in (OK, LOST) else _DEADLINE_EXCEEDED)
            sent.complete.append(
                code == OK and in_time and pb.SearchResponse.FromString(response).coverage.complete
            )
        return sent


async def main() -> None:
    """Obey orders until there are no more."""
    gc.freeze()
    loop = asyncio.get_running_loop()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = Order(**json.loads(line))
        host, _, port = order.address.rpartition(":")
        clients = [
            (await loop.create_connection(WireClient, host, int(port)))[1] for _ in range(_CONNECTIONS)
        ]
        sent = await Generator(order, clients).send()
        for client in clients:
            client.close()
        sys.stdout.write(json.dumps(asdict(sent)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
