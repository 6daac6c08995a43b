"""The asynchronous Python client of Headrace. Needs grpc and protobuf only."""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from google.protobuf.message import Message

from protos.headrace.v1.event_service_pb2 import RecordEventsResponse
from protos.headrace.v1.pre_ranking_service_pb2 import PreRankResponse
from protos.headrace.v1.ranking_service_pb2 import RankResponse
from protos.headrace.v1.retrieval_service_pb2 import RetrieveResponse
from protos.headrace.v1.search_service_pb2 import SearchRequest, SearchResponse
from protos.headrace.v1.types_pb2 import ModelVersion
from router import client_events, client_requests, client_results, client_stages
from router.call_error import CallError, RecordError, SearchError, StageError, Violation
from router.client_events import Event, RecordResult
from router.client_requests import Clause, FeatureInput
from router.client_results import SearchResult, StageList
from router.client_retries import DEFAULT_BACKOFF, Retries, RetryRules
from router.client_routers import Routers
from router.client_stages import Show, StageRequest, StageResponse, StageResult
from router.direct_calls import DirectCalls
from router.shard_channels import ShardChannels
from services.backoff import Backoff
from services.bearer import bearer
from services.dialling import Dialling
from services.tls import Certificates, Party, TlsFiles

if TYPE_CHECKING:
    from shards.search_context import SearchContext

__all__ = [
    "CallError",
    "Clause",
    "Event",
    "FeatureInput",
    "HeadraceClient",
    "RecordError",
    "RecordResult",
    "SearchError",
    "SearchResult",
    "Show",
    "StageError",
    "StageList",
    "StageResult",
    "TlsFiles",
    "Violation",
]

_SEARCH = "/headrace.v1.SearchService/Search"
_RECORD = "/headrace.v1.EventService/RecordEvents"
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 << 20),
    # Clients of one process have connections of their own, so that routers on one port share their searches.
    ("grpc.use_local_subchannel_pool", 1),
)
_CLOSING_S = 2.0
"""How long calls go on that a shard is working on when it leaves the placement."""

_NOTHING = Show()

M = TypeVar("M", bound=Message)


class HeadraceClient:
    """Searches, records events and asks single models, through any of several equal routers.

    Use as `async with HeadraceClient("host:port") as client`. Calls that find a router unavailable or
    overloaded are repeated, as all of them may be sent twice: on the next router at once, else with back-off
    and after the time that the router asked for. At most `max_attempts` times in all, only while most calls
    succeed, and never beyond the timeout of the call. An attempt ends after `attempt_timeout_s`, where that
    is set, so that a router that hangs leaves time for another. A `token` goes along with every call, in
    the clear unless there is `tls`: the authority of the router's certificate, and the client's own where the
    router asks for one. The certificate must be for `server_name`, or for the router's host where that is
    empty.

    With the address of a `controller` it follows the placement, and asks the shards of a model directly;
    routers answer where that does not lead to an answer, or is not allowed.
    """

    def __init__(
        self,
        routers: str | Sequence[str],
        token: str | None = None,
        *,
        controller: str | None = None,
        tls: TlsFiles | None = None,
        server_name: str = Party.ROUTER.value,
        timeout_s: float = 2.0,
        max_attempts: int = 8,
        attempt_timeout_s: float | None = None,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._metadata = bearer(token)
        self._timeout_s = timeout_s
        rng = rng or random.Random()
        certificates = Certificates(tls) if tls else None
        to_routers = Dialling(certificates=certificates, expected=server_name)
        to_controller = Dialling(certificates=certificates, expected=Party.CONTROLLER.value)
        to_shards = Dialling(certificates=certificates)
        self._channels = ShardChannels(_CHANNEL_OPTIONS, closing_s=0.0, shown=to_routers)
        self._control = ShardChannels(_CHANNEL_OPTIONS, closing_s=0.0, shown=to_controller)
        self._shard_channels = ShardChannels(_CHANNEL_OPTIONS, closing_s=_CLOSING_S, shown=to_shards)
        self._routers = Routers([routers] if isinstance(routers, str) else routers, self._channels, rng)
        rules = RetryRules(max_attempts=max_attempts, attempt_timeout_s=attempt_timeout_s)
        self._retries = Retries(rules, backoff or DEFAULT_BACKOFF, len(self._routers), rng)
        self._direct = controller and DirectCalls(
            controller, self._control, self._shard_channels, self._metadata, rng
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._channels.close)
            stack.push_async_callback(self._control.close)
            stack.push_async_callback(self._shard_channels.close)
            if self._direct:
                await stack.enter_async_context(self._direct)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def search(
        self,
        surface: str,
        query: str = "",
        *,
        user_id: str = "",
        page_size: int | None = None,
        context: Mapping[str, FeatureInput] | None = None,
        filter: Sequence[Clause] = (),  # noqa: A002
        now_ms: int | None = None,
        explain: bool = False,
        contributions: int = 0,
        request_id: str = "",
        timeout_s: float | None = None,
        traceparent: str = "",
    ) -> SearchResult:
        """Return one page of ranked items, within `timeout_s` (the client's own when None).

        `now_ms` answers for a moment other than the release's own clock. `traceparent` is the
        caller's own span, of which the search becomes a part (W3C Trace Context). Raises `SearchError`.
        """
        request = SearchRequest(
            surface=surface,
            query=query,
            user_id=user_id,
            context=client_requests.features(context or {}),
            page_size=page_size,
            filter=client_requests.clauses(filter),
            now=None if now_ms is None else client_events.timestamp(now_ms),
            explain=explain,
            contributions=contributions,
            request_id=request_id,
        )
        trace = (("traceparent", traceparent),) if traceparent else ()
        answer = await self._routed(_SEARCH, request, SearchResponse, timeout_s, SearchError, trace)
        return client_results.decode(answer)

    async def record_events(self, events: Sequence[Event], *, timeout_s: float | None = None) -> RecordResult:
        """Record up to 1,000 events, all or none, within `timeout_s` (the client's own when None).

        Every search that begins after it sees them. Raises `RecordError`, after which some other call may
        send the same events again: each counts once.
        """
        request = client_events.request_of(events)
        answer = await self._routed(_RECORD, request, RecordEventsResponse, timeout_s, RecordError)
        return client_events.result_of(answer)

    async def retrieve(
        self,
        model: str,
        search: "SearchContext",
        *,
        k: int,
        version: str = "",
        filter: Sequence[Clause] = (),  # noqa: A002
        show: Show = _NOTHING,
        timeout_s: float | None = None,
    ) -> StageResult:
        """Return the `k` best candidates of one model, the live version when none is named.

        Raises `StageError`.
        """
        named = ModelVersion(model=model, version=version)
        request = client_stages.retrieve_request(named, search, k, filter, show)
        return await self._stage(client_stages.RETRIEVE, request, RetrieveResponse, timeout_s)

    async def pre_rank(
        self,
        model: str,
        search: "SearchContext",
        candidates: StageList,
        *,
        keep: int = 0,
        version: str = "",
        show: Show = _NOTHING,
        timeout_s: float | None = None,
    ) -> StageResult:
        """Return the best of at most 20,000 candidates, all where `keep` is 0; raises `StageError`."""
        named = ModelVersion(model=model, version=version)
        request = client_stages.pre_rank_request(named, search, candidates, keep, show)
        return await self._stage(client_stages.PRE_RANK, request, PreRankResponse, timeout_s)

    async def rank(
        self,
        model: str,
        search: "SearchContext",
        candidates: StageList,
        *,
        keep: int = 0,
        task_exponents: Mapping[str, float] | None = None,
        version: str = "",
        show: Show = _NOTHING,
        timeout_s: float | None = None,
    ) -> StageResult:
        """Return the best of at most 5,000 candidates, with the column "score" and one for each task.

        Tasks count with their exponents, the model's own where none are given. Raises `StageError`.
        """
        named = ModelVersion(model=model, version=version)
        request = client_stages.rank_request(named, search, candidates, keep, task_exponents or {}, show)
        return await self._stage(client_stages.RANK, request, RankResponse, timeout_s)

    async def placement_known(self) -> None:
        """Return when the shards are known; until then, and without a controller at once, routers answer."""
        if self._direct:
            await self._direct.known()

    async def _routed(
        self,
        path: str,
        request: Message,
        response: type[M],
        timeout_s: float | None,
        error_kind: type[CallError],
        trace: tuple[tuple[str, str], ...] = (),
    ) -> M:
        payload, metadata = request.SerializeToString(), self._metadata + trace

        async def ask(_: int, within_s: float) -> bytes:
            return await self._routers.ask(path, payload, within_s, metadata)

        return error_kind.read(response, await self._retries.call(ask, self._within_s(timeout_s), error_kind))

    async def _stage(
        self, path: str, request: StageRequest, response: type[StageResponse], timeout_s: float | None
    ) -> StageResult:
        payload, model = request.SerializeToString(), (request.model.model, request.model.version)

        async def ask(attempt: int, within_s: float) -> tuple[bytes, bool]:
            until_s = time.monotonic() + within_s
            if self._direct and attempt == 0:
                answer = await self._direct.ask(path, model, payload, within_s)
                if answer is not None:
                    return answer, True
            left_s = max(0.0, until_s - time.monotonic())
            return await self._routers.ask(path, payload, left_s, self._metadata), False

        answer, direct = await self._retries.call(ask, self._within_s(timeout_s), StageError)
        return client_stages.result_of(StageError.read(response, answer), direct=direct)

    def _within_s(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s
