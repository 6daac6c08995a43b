"""A controller without a cluster: a real server on loopback that publishes what a test tells it to."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self

import grpc
import grpc.aio

from protos.headrace.v1 import cluster_service_pb2
from services import chassis
from services.followed_rules import RulesSource

_Context = grpc.aio.ServicerContext[Any, Any]


class ScriptedController:
    """Serves while its `async with` block runs; sends every watcher what is published.

    Like a real one it sends nothing older than a watcher knew when it came. What is published out of
    order is sent out of order.
    """

    def __init__(
        self,
        *published: cluster_service_pb2.Placement,
        address: str = "127.0.0.1:0",
        access: RulesSource | None = None,
    ) -> None:
        self.address = address
        self.known_generations: list[int] = []
        self.reports: asyncio.Queue[cluster_service_pb2.ShadowReport] = asyncio.Queue()
        self.gate_reports: asyncio.Queue[cluster_service_pb2.GateReport] = asyncio.Queue()
        self._access = access
        self._published = list(published)
        self._news = asyncio.Condition()

    async def publish(self, placement: cluster_service_pb2.Placement) -> None:
        async with self._news:
            self._published.append(placement)
            self._news.notify_all()

    async def _watch(
        self, request: cluster_service_pb2.WatchPlacementRequest, _: _Context
    ) -> AsyncIterator[cluster_service_pb2.WatchPlacementResponse]:
        self.known_generations.append(request.known_generation)
        for sent in itertools.count():
            async with self._news:
                while len(self._published) <= sent:
                    await self._news.wait()
            if self._published[sent].generation > request.known_generation:
                yield cluster_service_pb2.WatchPlacementResponse(placement=self._published[sent])

    async def _report(
        self, request: cluster_service_pb2.ReportShadowRequest, _: _Context
    ) -> cluster_service_pb2.ReportShadowResponse:
        for report in request.reports:
            self.reports.put_nowait(report)
        for gate_report in request.gate_reports:
            self.gate_reports.put_nowait(gate_report)
        return cluster_service_pb2.ReportShadowResponse()

    def _register(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "WatchPlacement": grpc.unary_stream_rpc_method_handler(
                self._watch,
                cluster_service_pb2.WatchPlacementRequest.FromString,
                cluster_service_pb2.WatchPlacementResponse.SerializeToString,
            ),
            "ReportShadow": grpc.unary_unary_rpc_method_handler(
                self._report,
                cluster_service_pb2.ReportShadowRequest.FromString,
                cluster_service_pb2.ReportShadowResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("headrace.v1.ClusterService", handlers),)
        )

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        server = await self._stack.enter_async_context(
            chassis.serve(
                self.address,
                register=[self._register],
                service_names=["headrace.v1.ClusterService"],
                options=chassis.ChassisOptions(grace_s=0.0),
                access=self._access,
            )
        )
        self.address = server.address
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
