"""A surface whose quality is watched: a good release, one whose index misses much, and what is searched."""

import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc

from deploy.release_files import write_release
from deploy.workspace import Workspace
from protos.headrace.v1 import event_service_pb2 as event_pb
from protos.headrace.v1 import search_service_pb2 as search_pb
from protos.headrace.v1.event_service_pb2_grpc import EventServiceStub
from protos.headrace.v1.search_service_pb2_grpc import SearchServiceStub
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from shards.search_context import SearchContext, UserState
from tests.abuse.bystander import RETRIES
from tests.shards import bundles
from training.reference_writing import write_references

SURFACE = "watched"
COARSE, SCORER = ModelVersion("watch-coarse", "1"), ModelVersion("watch-scorer", "1")
USUAL = tuple(
    f"{colour} {thing}"
    for colour in ("red", "blue", "silver", "ivory", "pink", "white", "black", "green")
    for thing in ("mug", "lantern", "candle", "teapot", "clock", "frame", "garland", "doormat")
)
UNUSUAL = tuple(f"{syllable * 3} {number}" for syllable in ("xq", "zv", "wj") for number in range(20))
"""Words that no title holds: what a broken keyboard, a bot or another language sends."""

_PATIENCE_MS = 3_000
_EVERY_S = 0.2
_TIMEOUT_S = 5.0
_ATTEMPTS = 5


def release(version: str, tower: str) -> Release:
    """Return a release of one index and a scorer."""
    channel = ReleaseChannel(name="two_tower", model=ModelVersion(tower, "1"), k=10)
    scorer = ReleaseScorer(model=SCORER, candidates=10, budget_ms=_PATIENCE_MS)
    return Release(
        surface=SURFACE,
        version=version,
        channels=(channel,),
        pre_ranker=scorer,
        retrieval_budget_ms=_PATIENCE_MS,
    )


GOOD, BAD = release("good", "watch-exact"), release("bad", COARSE.model)


def prepare(workspace: Workspace) -> None:
    """Write the bundles, with references, and the good release."""
    root = workspace.models_dir
    words = bundles.seeded_words()
    bundles.write_two_tower(root, words, name="watch-exact", index="Flat")
    bundles.write_two_tower(root, words, name=COARSE.model, index="IVF16,Flat")
    bundles.write_three_tower(root, words, name=SCORER.model)
    asked = [SearchContext(query=query, user=UserState(), now_ms=bundles.NOW_MS) for query in USUAL]
    write_references(GOOD, root, asked, lambda *_: True)
    write_release(workspace, replace(GOOD, as_of_ms=bundles.NOW_MS))


class Shopper:
    """Searches the surface from `with` on and clicks on the first item; `queries` may change meanwhile."""

    def __init__(self, address: str) -> None:
        self.queries = USUAL
        self.searches = self.events = 0
        self.lost: list[str] = []
        self._address = address
        self._rng = random.Random(7)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Shopper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10 * _TIMEOUT_S)

    def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", RETRIES)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            searches, events = SearchServiceStub(channel), EventServiceStub(channel)
            while not self._stop.wait(_EVERY_S):
                user = f"user-{self._rng.randrange(200)}"
                found = self._search(searches, user)
                if found is not None and found.items:
                    self._click(events, user, found)

    def _search(self, stub: SearchServiceStub, user: str) -> search_pb.SearchResponse | None:
        request = search_pb.SearchRequest(surface=SURFACE, query=self._rng.choice(self.queries), user_id=user)
        try:
            response = stub.Search(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            self.lost.append(f"search {error.code()}: {error.details()}")
            return None
        self.searches += 1
        return response

    def _click(self, stub: EventServiceStub, user: str, found: search_pb.SearchResponse) -> None:
        request = event_pb.RecordEventsRequest()
        event = request.events.add(
            event_id=f"e-{self.events}",
            user_id=user,
            item_id=found.items[0].item_id,
            action="click",
            search_id=found.request_id,
        )
        event.timestamp.GetCurrentTime()
        for attempt in range(_ATTEMPTS):
            try:
                stub.RecordEvents(request, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                if attempt == _ATTEMPTS - 1:
                    self.lost.append(f"event {error.code()}: {error.details()}")
                time.sleep(0.2 * (attempt + 1))
            else:
                self.events += 1
                return


def planning_file(folder: Path) -> Path:
    """Write patience for shards that start where others take the machine, and return the file."""
    path = folder / "planning.json"
    path.write_text('{"start_after_ms": 240000, "missing_after_ms": 240000}')
    return path


def serving_file(folder: Path) -> Path:
    """Write the serving rules of a soak and return the file."""
    path = folder / "serving.json"
    path.write_text(
        '{"shard": {"quality": {"share": 1.0, "queue": 256, "least_searches": 40, "window_s": 60.0,'
        ' "min_recall": 0.9}}, "router": {"outcomes": {"on": true}}}'
    )
    return path
