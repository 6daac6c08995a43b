"""Searches at a steady rate, each answer checked: `python -m tests.chaos.load ROUTER QUESTIONS RATE MOST`.

It is an open loop: a search is sent when its time has come, whatever became of those before. Rate 0 finds
the machine's own limit first and takes a quarter of it, but no more than MOST. One line of JSON a second goes
to standard output; it ends when standard input does.

Most searches take the lane "client", which is `HeadraceClient` with its retries. Some take "plain": a bare
stub that sends each search once, as callers do who have not heard of retries.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc.aio

from protos.headrace.v1 import search_service_pb2 as pb
from protos.headrace.v1.search_service_pb2_grpc import SearchServiceStub
from router.client import HeadraceClient, SearchError
from router.client_results import SearchResult, decode
from tests.chaos.workload import PAGE_SIZE, Question, read_questions

TIMEOUT_S = 5.0
"""Of a search; the product's own default of 2 s is for machines that are not shared with all of a cluster."""

_CONNECTIONS = 4
_PLAIN_SHARE = 0.1
_FINDING_S = 3.0
_FINDING_CONCURRENCY = 8
_SHARE = 1 / 4
_SLOWEST = 10.0
_LATEST_S = 1.0
"""A generator that got no processor for longer leaves out what it is late with."""

Search = Callable[[Question], Awaitable[SearchResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A search that was lost or answered wrongly; times are of the monotonic clock."""

    lane: str
    surface: str
    query: str
    code: str
    detail: str
    sent_s: float
    ended_s: float


@dataclass(slots=True, kw_only=True)
class Second:
    """What ended within a second that began at `at_s` of the monotonic clock."""

    at_s: float
    rate: float
    sent: int = 0
    skipped: int = 0
    plain: int = 0
    """Ended on the plain lane, whatever came of them; the other figures but failures are the client's."""
    done: int = 0
    degraded: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Load:
    """Sends searches and counts what comes of them."""

    def __init__(self, questions: list[Question], rng: random.Random, rate: float) -> None:
        self._questions = questions
        self._weights = [question.weight for question in questions]
        self._rng = rng
        self._rate = rate
        self._second = Second(at_s=time.monotonic(), rate=rate)

    def draw(self) -> Question:
        """Return the next search."""
        (question,) = self._rng.choices(self._questions, self._weights)
        return question

    async def ask(self, lane: str, search: Search, question: Question) -> None:
        """Send one search and note what comes of it."""
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                result = await search(question)
        except (SearchError, grpc.aio.AioRpcError, TimeoutError) as error:
            self._note(lane, question, sent_s, *_told(error))
            return
        wrong = question.verdict(result.release, [item.item_id for item in result.items])
        if wrong and result.complete:
            self._note(lane, question, sent_s, "WRONG", wrong)
            return
        self._note(lane, question, sent_s)
        if lane == "client":
            now = self._second
            now.latencies_ms.append(round((time.monotonic() - sent_s) * 1e3, 1))
            name = f"{question.surface}@{result.release}"
            now.releases[name] = now.releases.get(name, 0) + 1
            now.degraded += not result.complete
            now.gaps += [f"{gap.model} {gap.reason}: {gap.detail}" for gap in result.gaps]

    def _note(self, lane: str, question: Question, sent_s: float, code: str = "", detail: str = "") -> None:
        now = self._second
        if lane == "client":
            now.done += 1
        else:
            now.plain += 1
        if code:
            failure = Failure(
                lane=lane,
                surface=question.surface,
                query=question.query,
                code=code,
                detail=detail,
                sent_s=sent_s,
                ended_s=time.monotonic(),
            )
            now.failures.append(failure)

    async def send(self, group: asyncio.TaskGroup, lanes: list[tuple[str, Search]]) -> None:
        """Send without end, the lanes in turn as they are drawn."""
        shares = [_PLAIN_SHARE if name == "plain" else (1 - _PLAIN_SHARE) / _CONNECTIONS for name, _ in lanes]
        due_s = time.monotonic()
        while True:
            due_s += 1 / self._rate
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif -wait_s > _LATEST_S:
                self._second.skipped += 1
                continue
            ((lane, search),) = self._rng.choices(lanes, shares)
            self._second.sent += 1
            group.create_task(self.ask(lane, search, self.draw()))

    async def report(self) -> None:
        """Write a line a second, and the last one at the end."""
        try:
            while True:
                await asyncio.sleep(1 - time.monotonic() % 1)
                self._write()
        finally:
            self._write()

    def _write(self) -> None:
        ended, self._second = self._second, Second(at_s=time.monotonic(), rate=self._rate)
        sys.stdout.write(json.dumps(asdict(ended)) + "\n")
        sys.stdout.flush()


async def bearable_rate(questions: list[Question], search: Search, most: float) -> float:
    """Return a quarter of what is answered a second when always some are under way.

    That is of the whole cluster with bundles side by side, most searches being one call. A quarter of it may
    be away, beside shards that start and load, and once bundles moved apart a search takes several calls.
    """
    asked = Load(questions, random.Random(0), 0)
    late_s = time.monotonic() + _FINDING_S
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.monotonic() < late_s:
            await search(asked.draw())
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(_FINDING_CONCURRENCY):
            group.create_task(caller())
    return min(most, max(_SLOWEST, _SHARE * count / _FINDING_S))


async def main(router: str, questions: list[Question], rate: float, most: float) -> None:
    """Send searches until standard input ends."""
    async with AsyncExitStack() as exits:
        clients = [
            await exits.enter_async_context(HeadraceClient(router, timeout_s=TIMEOUT_S))
            for _ in range(_CONNECTIONS)
        ]
        lanes = [("client", _by_client(client)) for client in clients]
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(router, options=options))
        lanes.append(("plain", _by_stub(SearchServiceStub(channel))))
        rate = rate or await bearable_rate(questions, lanes[0][1], most)
        load = Load(questions, random.Random(1), rate)
        async with asyncio.TaskGroup() as searches:
            sending = asyncio.create_task(load.send(searches, lanes))
            reporting = asyncio.create_task(load.report())
            await asyncio.to_thread(sys.stdin.read)
            sending.cancel()
            await asyncio.wait([sending])
        reporting.cancel()
        await asyncio.wait([reporting])


def _by_client(client: HeadraceClient) -> Search:
    async def search(question: Question) -> SearchResult:
        return await client.search(question.surface, question.query, page_size=PAGE_SIZE)

    return search


def _by_stub(stub: SearchServiceStub) -> Search:
    async def search(question: Question) -> SearchResult:
        request = pb.SearchRequest(surface=question.surface, query=question.query, page_size=PAGE_SIZE)
        response: pb.SearchResponse = await stub.Search(request, timeout=TIMEOUT_S)  # type: ignore[misc]
        return decode(response)

    return search


def _told(error: Exception) -> tuple[str, str]:
    match error:
        case SearchError():
            return error.code.name, error.message
        case grpc.aio.AioRpcError():
            return error.code().name, error.details() or ""
        case _:
            return "HUNG", "no answer at twice the deadline"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], read_questions(Path(sys.argv[2])), float(sys.argv[3]), float(sys.argv[4])))
