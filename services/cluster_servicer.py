"""ClusterService: operators ask here for what they want, and routers learn the placement."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import cluster_service_pb2_grpc
from services.codec import placement_to_proto
from services.codec.changes import change_from_proto
from services.codec.cluster import models_to_proto, releases_to_proto, shards_to_proto
from services.codec.intent import operation_to_proto
from services.codec.shadow import shadow_reports_from_proto
from services.controller_driver import ControllerDriver
from services.shadow_reports import ShadowReports

SERVICE_NAME = "headrace.v1.ClusterService"

_Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Answers from what the driver knows; methods that it does not name are UNIMPLEMENTED."""

    def __init__(self, driver: ControllerDriver) -> None:
        self._driver = driver
        self._shadows = ShadowReports()

    async def ListShards(self, request: pb.ListShardsRequest, _: _Context) -> pb.ListShardsResponse:  # noqa: ARG002, N802
        """List the shards and what they hold."""
        state = self._driver.state
        return pb.ListShardsResponse(
            shards=shards_to_proto(state, self._driver.now_ms()), generation=state.placement.generation
        )

    async def ListModels(self, request: pb.ListModelsRequest, _: _Context) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        """List the bundles that the controller has met."""
        return pb.ListModelsResponse(models=models_to_proto(self._driver.state))

    async def ListReleases(self, request: pb.ListReleasesRequest, _: _Context) -> pb.ListReleasesResponse:  # noqa: ARG002, N802
        """List what answers for every surface, what else of it is loaded, and how shadows compare."""
        placement = self._driver.state.placement
        return releases_to_proto(placement, lambda surface: self._shadows.of(surface, placement.traffic))

    async def GetPlacement(self, request: pb.GetPlacementRequest, _: _Context) -> pb.GetPlacementResponse:  # noqa: ARG002, N802
        """Return the committed placement."""
        return pb.GetPlacementResponse(placement=placement_to_proto(self._driver.state.placement))

    async def WatchPlacement(  # noqa: N802
        self, request: pb.WatchPlacementRequest, _: _Context
    ) -> AsyncIterator[pb.WatchPlacementResponse]:
        """Send the placement without its intent, unless it is known, and every one that follows."""
        async for placement in self._driver.watch(request.known_generation):
            yield pb.WatchPlacementResponse(placement=placement_to_proto(placement))

    async def ListOperations(  # noqa: N802
        self,
        request: pb.ListOperationsRequest,  # noqa: ARG002
        _: _Context,
    ) -> pb.ListOperationsResponse:
        """List the operations under way and the last that ended, oldest first."""
        return pb.ListOperationsResponse(
            operations=[operation_to_proto(operation) for operation in self._driver.operations()]
        )

    async def GetOperation(self, request: pb.GetOperationRequest, _: _Context) -> pb.GetOperationResponse:  # noqa: N802
        """Return an operation."""
        operation = self._driver.operation(request.operation_id)
        return pb.GetOperationResponse(operation=operation_to_proto(operation))

    async def DeployRelease(self, request: pb.DeployReleaseRequest, _: _Context) -> pb.DeployReleaseResponse:  # noqa: N802
        """Start to bring a release live, or to let it answer a share."""
        return pb.DeployReleaseResponse(
            operation=operation_to_proto(await self._driver.request(change_from_proto(request)))
        )

    async def ReportShadow(self, request: pb.ReportShadowRequest, _: _Context) -> pb.ReportShadowResponse:  # noqa: N802
        """Add what a router has compared to what others have."""
        traffic = self._driver.state.placement.traffic
        self._shadows.add(shadow_reports_from_proto(request), traffic)
        return pb.ReportShadowResponse()


def register(driver: ControllerDriver) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the service to a server."""

    def add(server: grpc.aio.Server) -> None:
        # The stubs call every method abstract; those left out answer UNIMPLEMENTED.
        servicer = ClusterServicer(driver)  # type: ignore[abstract]
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(servicer, server)

    return add
