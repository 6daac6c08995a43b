"""A closed loop of searches in a process of its own: `python -m tests.bench.search_caller REQUESTS ADDRESS…`.

For each line of JSON on its standard input it answers one: a `Load` with a `LoadResult`, a list of numbers of
requests with the item ids of their answers. The addresses share the connections between them.
"""

import gc
import json
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from deploy.settings import PROJECT_ROOT
from protos.headrace.v1.search_service_pb2 import SearchResponse
from tests.bench.http2_connection import REFUSED_S, Http2Connection, Reply
from tests.bench.search_requests import read_requests

METHOD = "/headrace.v1.SearchService/Search"

_COMPLETE = b'"\x02\x08\x01'
"""Field 4 of a SearchResponse, `coverage`, with nothing but `complete`: cheaper than reading the message."""

_MOST_CONNECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Keep so many searches in flight for so long, once it has been going on for `warm_s`."""

    in_flight: int
    seconds: float
    warm_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class LoadResult:
    """What became of a load.

    Latencies are of the answers that came in its time, after warming up. `asked` counts all searches that
    were sent, `failed` those without an answer and `degraded` answers with gaps; `cpu_s` is the processor
    time of a caller in a process of its own.
    """

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    asked: int = 0
    failed: int = 0
    degraded: int = 0
    problem: str = ""
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Asker:
    """The other side of the process."""

    process: "subprocess.Popen[str]"

    def load(self, load: Load) -> LoadResult:
        """Return what became of a load."""
        return LoadResult(**self._told(asdict(load)))

    def item_ids(self, numbers: Sequence[int]) -> list[list[str]]:
        """Return the items of the answers to these requests, best first; empty where one failed."""
        answer: list[list[str]] = self._told({"numbers": list(numbers)})["item_ids"]
        return answer

    def _told(self, document: Mapping[str, object]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def asker(module: str, *arguments: str) -> Iterator[Asker]:
    """Give what asks in a process that runs this module, or another one that understands the same lines."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Asker(process)
        finally:
            process.terminate()


def answer_lines(
    load: Callable[[Load], LoadResult], item_ids: Callable[[Sequence[int]], list[list[str]]]
) -> None:
    """Answer standard input, a line each, until it ends."""
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        told = json.loads(line)
        if "numbers" in told:
            document: Mapping[str, object] = {"item_ids": item_ids(told["numbers"])}
        else:
            document = asdict(load(Load(**told)))
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


class Caller:
    """Asks the requests in turn, and goes on where the load before ended."""

    def __init__(self, requests: Sequence[bytes], addresses: Sequence[str]) -> None:
        self._requests = requests
        self._turn = cycle(requests)
        self._addresses = addresses

    def load(self, load: Load) -> LoadResult:
        """Keep the searches in flight; returns when the last one has ended."""
        started_s = time.process_time()
        connections = self._connect(min(load.in_flight, _MOST_CONNECTIONS))
        try:
            result = _Loop(load, self._turn, connections).run()
            result.cpu_s = time.process_time() - started_s
            return result
        finally:
            for connection in connections:
                connection.close()

    def item_ids(self, numbers: Sequence[int]) -> list[list[str]]:
        """Return the items of these requests, asked one after the other."""
        (connection,) = self._connect(1)
        try:
            return [_items(_ask(connection, self._requests[number])) for number in numbers]
        finally:
            connection.close()

    def _connect(self, count: int) -> list[Http2Connection]:
        return [Http2Connection(address, METHOD) for address in islice(cycle(self._addresses), count)]


class _Loop:
    """One load while it runs."""

    def __init__(self, load: Load, requests: Iterator[bytes], connections: Sequence[Http2Connection]) -> None:
        self._load, self._requests, self._connections = load, requests, connections
        self._sent_s: dict[tuple[int, int], float] = {}
        self._resting: deque[tuple[float, Http2Connection]] = deque()
        self._result = LoadResult(seconds=load.seconds)

    def run(self) -> LoadResult:
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            from_s = time.perf_counter() + self._load.warm_s
            until_s = from_s + self._load.seconds
            for connection in islice(cycle(self._connections), self._load.in_flight):
                self._send(connection)
            while self._sent_s or self._resting:
                for key, _ in selector.select(REFUSED_S if self._resting else None):
                    for reply in key.data.receive():
                        now_s = time.perf_counter()
                        self._note(key.data, reply, now_s, counts=from_s <= now_s < until_s)
                        if now_s < until_s:
                            self._go_on(key.data, reply, now_s)
                self._wake(time.perf_counter(), until_s)
        return self._result

    def _go_on(self, connection: Http2Connection, reply: Reply, now_s: float) -> None:
        if reply.ok:
            self._send(connection)
        else:
            self._resting.append((now_s + REFUSED_S, connection))

    def _wake(self, now_s: float, until_s: float) -> None:
        while self._resting and self._resting[0][0] <= now_s:
            _, connection = self._resting.popleft()
            if now_s < until_s:
                self._send(connection)

    def _send(self, connection: Http2Connection) -> None:
        sent_s = time.perf_counter()
        self._sent_s[id(connection), connection.send(next(self._requests))] = sent_s
        self._result.asked += 1

    def _note(self, connection: Http2Connection, reply: Reply, now_s: float, *, counts: bool) -> None:
        took_s = now_s - self._sent_s.pop((id(connection), reply.stream))
        if not reply.ok:
            self._result.failed += 1
            self._result.problem = self._result.problem or repr(reply.trailers)
        elif _COMPLETE not in reply.payload:
            self._result.degraded += 1
        if reply.ok and counts:
            self._result.latencies_ms.append(round(took_s * 1e3, 3))


def _ask(connection: Http2Connection, request: bytes) -> Reply:
    connection.send(request)
    return connection.wait()


def _items(reply: Reply) -> list[str]:
    if not reply.ok:
        return []
    return [item.item_id for item in SearchResponse.FromString(reply.message).items]


def main() -> None:
    """Serve the lines."""
    path, *addresses = sys.argv[1:]
    caller = Caller(read_requests(Path(path)), addresses)
    answer_lines(caller.load, caller.item_ids)


if __name__ == "__main__":
    main()
