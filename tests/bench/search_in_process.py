"""The same arithmetic in one process, without any call over a wire: the floor of `make bench-search`.

`python -m tests.bench.search_in_process REQUESTS WORKSPACE RELEASE WORKERS` understands the lines of
`tests.bench.search_caller`. So many searches as are in flight wait in one queue, from which `WORKERS` threads
take them; a search's time runs from the moment it is in the queue.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

import faiss
import torch

from deploy.release_files import read_release_file
from deploy.workspace import Workspace
from protos.headrace.v1.search_service_pb2 import SearchRequest as SearchRequestMessage
from services.codec import SearchRequest, search_from_proto
from services.lmdb_user_store import LmdbUserStore
from services.user_store import UserStore
from shards.release import ModelVersion, Release
from shards.stages import Servable
from tests.bench.one_search import open_servables, question, run
from tests.bench.search_caller import Load, LoadResult, answer_lines
from tests.bench.search_requests import read_requests

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """A release with its bundles open in this process."""

    release: Release
    servables: Mapping[ModelVersion, Servable]
    users: UserStore

    def item_ids(self, asked: SearchRequest) -> list[str]:
        """Answer one search with its page."""
        asking = _at_once(question(asked, self.release, self.users, lambda _: True))
        (unit,) = asking.units
        return [item.item_id for item in asking.items(run(asking.call(unit), self.servables))]


def _at_once(reading: Coroutine[None, None, T]) -> T:
    """Return what a coroutine returns that never waits: users in LMDB are read where they are."""
    try:
        reading.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("the coroutine waits")


def closed_loop(
    load: Load, answer: Callable[[SearchRequest], object], requests: "deque[SearchRequest]", workers: int
) -> LoadResult:
    """Keep the searches in flight, `workers` of them at work; what has been asked goes to the queue's end."""
    from_s = time.perf_counter() + load.warm_s
    until_s = from_s + load.seconds
    # Entering and leaving a deque is atomic, and so is appending to a list.
    waiting = deque(time.perf_counter() for _ in range(load.in_flight))
    took_ms: list[float] = []
    asked: list[int] = []

    def work() -> None:
        count = 0
        while waiting:
            try:
                queued_s = waiting.popleft()
            except IndexError:
                break
            request = requests.popleft()
            requests.append(request)
            answer(request)
            count, now_s = count + 1, time.perf_counter()
            if from_s <= now_s < until_s:
                took_ms.append(round((now_s - queued_s) * 1e3, 3))
            if now_s < until_s:
                waiting.append(now_s)
        asked.append(count)

    others = [Thread(target=work) for _ in range(workers - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    return LoadResult(seconds=load.seconds, latencies_ms=took_ms, asked=sum(asked))


def main() -> None:
    """Open everything, then serve the lines."""
    requests_path, workspace, release_path, workers = sys.argv[1:]
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    folders, release = Workspace(Path(workspace)), read_release_file(Path(release_path))
    requests = [
        search_from_proto(SearchRequestMessage.FromString(raw)) for raw in read_requests(Path(requests_path))
    ]
    with LmdbUserStore.open(folders.users_path) as users:
        served = InProcess(
            release=release,
            servables=open_servables(list(release.models()), folders.models_dir),
            users=users,
        )
        turn = deque(requests)

        def item_ids(numbers: Sequence[int]) -> list[list[str]]:
            return [served.item_ids(requests[number]) for number in numbers]

        answer_lines(lambda load: closed_loop(load, served.item_ids, turn, int(workers)), item_ids)


if __name__ == "__main__":
    main()
