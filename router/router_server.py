"""The router process: one server with search and the stage proxies, and the watch that feeds them."""

import asyncio
import contextlib
import random
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

import grpc

from protos.headrace.v1 import event_service_pb2_grpc, search_service_pb2_grpc
from router.admission import Admission
from router.coalescing import Coalescing
from router.event_measures import EventMeasures
from router.event_servicer import EventServicer
from router.gate_models import GateModels
from router.gatekeeper import Gatekeepers
from router.outcome_log import OutcomeLog
from router.placement_source import ConsulPlacementSource
from router.placement_watch import PlacementWatch
from router.refusals import Refusals
from router.replicas import ReplicaHealth
from router.router_config import RouterConfig
from router.router_metrics import event_instruments, routing_instruments, search_instruments
from router.routing_table import RoutingTable
from router.search_observer import SearchObserver
from router.search_servicer import SearchServicer
from router.shadow_reporter import ShadowReporter
from router.shadowing import Shadowing
from router.shard_calls import ShardCalls
from router.shard_channels import ShardChannels
from router.stage_client import PRE_RANK, RANK, RETRIEVE
from router.stage_proxy import StageProxy
from services import chassis
from services.bearer import bearer
from services.dialling import Dialling
from services.metrics_port import metrics_port
from services.tls import Certificates
from services.tracing import running_tracing
from services.user_store import UserStore
from services.user_store_opening import open_users

_EVENTS = "headrace.v1.EventService"

SERVICES = (
    "headrace.v1.SearchService",
    "headrace.v1.RetrievalService",
    "headrace.v1.PreRankingService",
    "headrace.v1.RankingService",
    _EVENTS,
)
"""Full names of what a router serves."""

_SEARCH = "/headrace.v1.SearchService/Search"
_RECORD = f"/{_EVENTS}/RecordEvents"

_FIRST_TABLE_S = 2.0
"""More than a router waits for its controller before it reads its cache."""


class Router:
    """Serves while its `async with` block runs; `address` and `port` say where.

    Health is SERVING once a placement with a release is known. When the block ends, requests in flight
    are finished for up to `grace_s`.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._certificates = certificates = Certificates(config.tls) if config.tls else None
        self._channels = ShardChannels(
            chassis.channel_options(
                max_message_bytes=config.max_message_bytes, keepalive_s=config.keepalive_s
            ),
            closing_s=config.max_deadline_s,
            shown=Dialling(certificates=certificates, metadata=bearer(config.shard_token)),
        )
        self._replicas = ReplicaHealth(random.Random(), config.replicas)
        self._watch = PlacementWatch(
            controller=config.controller,
            cache_path=config.cache_path,
            on_change=self._use,
            rng=random.Random(),
            source=ConsulPlacementSource(config.consul, random.Random()) if config.consul else None,
            token=config.controller_token,
            gates=GateModels(config.bundle_root, config.trusted_keys),
            certificates=certificates,
        )
        self._calls = ShardCalls(
            channels=self._channels, health=self._replicas, tables=self._watch, settings=config.calls
        )
        self._admission = Admission(config.limit.below(config.max_in_flight))
        self._proxied = Admission(config.limit.below(config.max_in_flight))
        self._recordings = Admission(config.limit.below(config.max_recordings))
        self._events = EventMeasures()
        self._coalescing = Coalescing()
        self._reporter = ShadowReporter(
            config.controller,
            config.controller_token,
            interval_s=config.shadow_report_s,
            certificates=certificates,
        )
        self._shadowing = Shadowing(self._reporter, self._admission, most=config.max_shadows)
        self._outcomes = _outcome_log(config)
        self._gatekeepers = Gatekeepers(lambda: self._admission.load)
        self._known, self._ready = asyncio.Event(), asyncio.Event()
        self._server: chassis.Server | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._tasks = await asyncio.TaskGroup().__aenter__()
            # The block's own error is not the tasks': it leaves as it is, not in a group.
            stack.push_async_callback(self._tasks.__aexit__, None, None, None)
            stack.push_async_callback(self._channels.close)
            users = await stack.enter_async_context(open_users(self._config.user_store))
            observer = await self._observe(stack)
            # The last report is sent when the last answer was, and no shadow runs any more.
            stack.push_async_callback(self._reporter.flush)
            await stack.enter_async_context(self._shadowing)
            stack.callback(self._tasks.create_task(self._reporter.run()).cancel)
            if self._outcomes is not None:
                stack.push_async_callback(self._outcomes.flush)
                stack.callback(self._tasks.create_task(self._outcomes.run()).cancel)
            stack.callback(self._tasks.create_task(self._watch.run()).cancel)
            stack.callback(self._tasks.create_task(self._channels.follow_certificates()).cancel)
            if self._config.reuse_port:
                await self._first_table()
            self._server = await stack.enter_async_context(self._serve(users, observer))
            await self._tell_health()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def address(self) -> str:
        """Return HOST:PORT."""
        assert self._server is not None
        return self._server.address

    @property
    def port(self) -> int:
        """Return the port, also where any was asked for."""
        assert self._server is not None
        return self._server.port

    @property
    def in_flight(self) -> int:
        """Return how many searches are worked on."""
        return self._admission.in_flight

    @property
    def in_flight_to_shards(self) -> int:
        """Return how many calls of shards are under way, for searches and for callers of the proxies."""
        return self._replicas.in_flight

    async def ready(self) -> RoutingTable:
        """Return the routing table, once there is one with a release."""
        await self._ready.wait()
        return self._watch.table

    async def _observe(self, stack: AsyncExitStack) -> SearchObserver:
        """Return what watches searches; its figures can be seen from now on."""
        telemetry = self._config.telemetry
        tracing = await stack.enter_async_context(running_tracing(telemetry, roots=True))
        observer = SearchObserver(telemetry.settings, tracing)
        doors = {"search": self._admission, "stage": self._proxied, "event": self._recordings}
        instruments = (
            *search_instruments(observer.measures, self._coalescing, self._gatekeepers),
            *event_instruments(self._events, self._outcomes),
            *routing_instruments(self._calls, self._replicas, doors, lambda: self._watch.table),
        )
        stack.enter_context(metrics_port(telemetry, instruments))
        return observer

    def _serve(
        self, users: UserStore, observer: SearchObserver
    ) -> AbstractAsyncContextManager[chassis.Server]:
        config = self._config
        searches, events, proxy = self._searches(users, observer), self._recorder(users), self._proxy()
        return chassis.serve(
            f"{config.host}:{config.port}",
            register=[
                lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(searches, server),
                lambda server: event_service_pb2_grpc.add_EventServiceServicer_to_server(events, server),
                proxy.register,
            ],
            service_names=SERVICES,
            options=_chassis_options(config),
            serving=False,
            access=config.access,
            first=[self._refusals(observer)],
            tls=self._credentials(),
        )

    def _searches(self, users: UserStore, observer: SearchObserver) -> SearchServicer:
        config = self._config
        return SearchServicer(
            calls=self._calls,
            newest=self._watch.newest,
            users=users,
            admission=self._admission,
            deadline_of=config.deadline_of,
            shadowing=self._shadowing,
            user_timeout_s=config.user_timeout_s,
            coalescing=self._coalescing,
            observer=observer,
            gatekeepers=self._gatekeepers,
            outcomes=self._outcomes,
            max_page_size=config.max_page_size,
        )

    def _recorder(self, users: UserStore) -> EventServicer:
        return EventServicer(
            users=users,
            admission=self._recordings,
            deadline_of=self._config.deadline_of,
            measures=self._events,
            outcomes=self._outcomes,
        )

    def _proxy(self) -> StageProxy:
        return StageProxy(
            calls=self._calls,
            newest=self._watch.newest,
            admission=self._proxied,
            deadline_of=self._config.deadline_of,
        )

    def _credentials(self) -> grpc.ServerCredentials | None:
        if self._certificates is None:
            return None
        return self._certificates.server_credentials(mutual=self._config.mutual_tls)

    def _refusals(self, observer: SearchObserver) -> Refusals:
        def refused(method: str) -> None:
            if method == _SEARCH:
                observer.measures.refused()

        stages = dict.fromkeys((RETRIEVE, PRE_RANK, RANK), self._proxied)
        return Refusals({_SEARCH: self._admission, _RECORD: self._recordings, **stages}, refused)

    async def _use(self, table: RoutingTable) -> None:
        """Follow a new table: connections, memory of failures and health."""
        self._replicas.retain(table.endpoints.values(), time.monotonic())
        self._tasks.create_task(self._channels.retain(table.placement.endpoints.values()))
        self._known.set()
        await self._tell_health()

    async def _first_table(self) -> None:
        """Wait for a placement, but not for ever: whoever else shares the port may have one already.

        The kernel gives a router its share of the callers as soon as it listens.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TABLE_S):
                await self._known.wait()

    async def _tell_health(self) -> None:
        """Say whether there is a release to answer with, once there is somebody to say it."""
        if self._server is None:
            return
        serving = bool(self._watch.table.placement.releases)
        for name in ("", *SERVICES):
            # Events are recorded without any release.
            await self._server.set_serving(name, serving or name == _EVENTS)
        if serving:
            self._ready.set()


def _outcome_log(config: RouterConfig) -> OutcomeLog | None:
    if config.outcomes_dir is None or not config.outcomes.on:
        return None
    return OutcomeLog(config.outcomes_dir, config.telemetry.name, config.outcomes)


def _chassis_options(config: RouterConfig) -> chassis.ChassisOptions:
    return chassis.ChassisOptions(
        max_message_bytes=config.max_message_bytes,
        keepalive_s=config.keepalive_s,
        max_pending=config.max_pending,
        max_streams=config.max_streams,
        max_connection_age_s=config.max_connection_age_s,
        max_connection_age_grace_s=config.max_deadline_s + config.grace_s,
        reuse_port=config.reuse_port,
        max_metadata_bytes=config.max_metadata_bytes,
        reflection=config.reflection,
        grace_s=config.grace_s,
        default_deadline_s=config.max_deadline_s,
    )
