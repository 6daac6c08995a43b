"""The server every Headrace process runs: gRPC with health, reflection, channelz and mapped errors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_channelz.v1.channelz_pb2 import DESCRIPTOR as CHANNELZ
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from services.access import Role, roles_for
from services.access_interceptor import AccessInterceptor
from services.audit_interceptor import AuditInterceptor
from services.audit_log import AuditLog
from services.error_interceptor import ErrorInterceptor
from services.followed_rules import RulesSource
from shards.errors import Unavailable

Register = Callable[[grpc.aio.Server], None]
"""Adds a servicer or generic handlers to a server."""

MAX_MESSAGE_BYTES = 16 * 2**20
MAX_METADATA_BYTES = 16 * 2**10
KEEPALIVE_S = 20.0
CONTROL_DEADLINE_S = 30.0
STAGE_DEADLINE_S = 2.0

_STANDARD_SERVICES = (
    HEALTH.services_by_name["Health"].full_name,
    CHANNELZ.services_by_name["Channelz"].full_name,
    reflection.SERVICE_NAME,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChassisOptions:
    """How a server speaks; `default_deadline_s` bounds unary calls that come without a deadline.

    Callers are told to connect anew once a connection is `max_connection_age_s` old, give or take a tenth,
    so that they spread over servers on one port; calls in flight then have `max_connection_age_grace_s`. At
    0 connections last.

    Of the calls that have come and that this process had no time to look at yet, gRPC turns the more away
    (CANCELLED) the more there are over `max_pending`, and all over four times as many; 0 is gRPC's own limit.
    A connection has at most `max_streams` calls open, 0 for any number: callers of gRPC wait for their turn,
    and what one opens beyond is refused, so that no single connection fills what others wait in.
    A call whose metadata is larger than `max_metadata_bytes` is refused by gRPC (RESOURCE_EXHAUSTED).
    """

    max_message_bytes: int = MAX_MESSAGE_BYTES
    keepalive_s: float = KEEPALIVE_S
    reuse_port: bool = False
    grace_s: float = 5.0
    default_deadline_s: float = CONTROL_DEADLINE_S
    max_pending: int = 0
    max_streams: int = 0
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 30.0
    max_metadata_bytes: int = MAX_METADATA_BYTES
    reflection: bool = True

    def __post_init__(self) -> None:
        positive = (
            self.max_message_bytes,
            self.max_metadata_bytes,
            self.keepalive_s,
            self.default_deadline_s,
        )
        if min(positive) <= 0 or self.grace_s < 0:
            raise ValueError("sizes and times of a server must be positive")
        not_negative = (self.max_pending, self.max_streams, self.max_connection_age_s)
        if min(not_negative) < 0 or self.max_connection_age_grace_s <= 0:
            raise ValueError(
                "max_pending, max_streams, max_connection_age_s must not be negative, its grace be positive"
            )


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs; `address` is HOST:PORT as callers on this host reach it."""

    address: str
    port: int
    _grpc: grpc.aio.Server
    _health: health.aio.HealthServicer

    async def set_serving(self, service_name: str, serving: bool) -> None:
        """Say in health checks whether the service ("" for all of them) takes requests."""
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        await self._health.set(service_name, status)

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._grpc.wait_for_termination()

    async def stop(self, grace_s: float) -> None:
        """Say NOT_SERVING, refuse new calls, give those in flight `grace_s`, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._grpc.stop(grace_s)


@asynccontextmanager
async def serve(
    address: str,
    *,
    register: Sequence[Register],
    service_names: Sequence[str],
    options: ChassisOptions = ChassisOptions(),
    serving: bool = True,
    access: RulesSource | None = None,
    roles: Callable[[str], tuple[Role, ...]] = roles_for,
    first: Sequence[grpc.aio.ServerInterceptor] = (),
    tls: grpc.ServerCredentials | None = None,
    audit: AuditLog | None = None,
) -> AsyncIterator[Server]:
    """Serve on HOST:PORT (port 0 for any) until the block ends, then stop gracefully.

    `service_names` are full names ("headrace.v1.SearchService"), for health and reflection. Health
    starts as `serving`; `set_serving` changes it. With `access` only callers who have one of the `roles` of a
    method may call it; health stays open. Calls pass the `first` interceptors before
    anything else looks at them. With `tls` the port speaks nothing else.
    Calls that change a cluster go into the `audit`.
    Raises `Unavailable` when the address is taken.
    """
    interceptors: list[grpc.aio.ServerInterceptor] = [*first, ErrorInterceptor(options.default_deadline_s)]
    if audit is not None:
        interceptors.append(AuditInterceptor(audit))
    if access is not None:
        interceptors.append(AccessInterceptor(access, roles=roles, certificates=tls is not None))
    server = grpc.aio.server(interceptors=interceptors, options=_server_options(options))
    checks = health.aio.HealthServicer()
    add_HealthServicer_to_server(checks, server)
    channelz.add_channelz_servicer(server)
    if options.reflection:
        reflection.enable_server_reflection((*service_names, *_STANDARD_SERVICES), server)
    for add in register:
        add(server)
    port = _bind(server, address, tls)
    running = Server(f"{address.rpartition(':')[0]}:{port}", port, server, checks)
    for name in ("", *service_names):
        await running.set_serving(name, serving)
    await server.start()
    try:
        yield running
    finally:
        # A cancelled caller still gets its graceful stop.
        await asyncio.shield(running.stop(options.grace_s))


def _bind(server: grpc.aio.Server, address: str, tls: grpc.ServerCredentials | None) -> int:
    try:
        return server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address}") from error


def _server_options(options: ChassisOptions) -> list[tuple[str, int]]:
    return [
        *_message_limits(options.max_message_bytes),
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
        ("grpc.so_reuseport", int(options.reuse_port)),
        ("grpc.enable_channelz", 1),
        ("grpc.keepalive_time_ms", round(options.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 5000),
        # Clients ping every `keepalive_s` even when idle; without this they are told ENHANCE_YOUR_CALM.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        *_waiting(options),
        *_connection_age(options),
    ]


def _waiting(options: ChassisOptions) -> list[tuple[str, int]]:
    limits = []
    if options.max_streams:
        limits += [
            ("grpc.max_concurrent_streams", options.max_streams),
            # By itself gRPC refuses streams of callers who keep to the limit, while others are put away.
            ("grpc.http2.max_deallocating_streams", options.max_streams),
        ]
    if options.max_pending:
        limits += [
            ("grpc.server.max_pending_requests", options.max_pending),
            ("grpc.server.max_pending_requests_hard_limit", 4 * options.max_pending),
        ]
    return limits


def _connection_age(options: ChassisOptions) -> list[tuple[str, int]]:
    if not options.max_connection_age_s:
        return []
    return [
        ("grpc.max_connection_age_ms", round(options.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(options.max_connection_age_grace_s * 1000)),
    ]


def remaining_s(context: "grpc.aio.ServicerContext[Any, Any]", *, default_s: float) -> float:
    """Return the seconds left to answer the call; `default_s` when it came without a deadline."""
    left_s: float | None = context.time_remaining()
    return default_s if left_s is None else left_s


def channel_options(
    *, max_message_bytes: int = MAX_MESSAGE_BYTES, keepalive_s: float = KEEPALIVE_S
) -> list[tuple[str, int]]:
    """Return the options of a channel to such a server: its limits, fast reconnects, no hidden retries."""
    return [
        *_message_limits(max_message_bytes),
        ("grpc.keepalive_time_ms", round(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A shard that Ray has restarted must be found at once, not after a back-off of two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Despite its name it is how long connecting may take; a busy host needs more than the 100 ms above.
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.enable_retries", 0),
    ]


def _message_limits(size_bytes: int) -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", size_bytes), ("grpc.max_send_message_length", size_bytes)]
