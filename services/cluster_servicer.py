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
from services.codec.plans import forecast_to_proto, moves_from_proto
from services.codec.shadow import gate_reports_from_proto, shadow_reports_from_proto
from services.controller_driver import ControllerDriver
from services.shadow_reports import gate_reports, shadow_reports

SERVICE_NAME = "headrace.v1.ClusterService"

_Context = grpc.aio.ServicerContext[Any, Any]


class ClusterServicer(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Answers from what the driver knows; whatever changes the cluster becomes an operation of the driver."""

    def __init__(self, driver: ControllerDriver) -> None:
        self._driver = driver
        self._shadows = shadow_reports()
        self._gates = gate_reports()

    async def ListShards(self, request: pb.ListShardsRequest, _: _Context) -> pb.ListShardsResponse:  # noqa: ARG002, N802
        """List the shards and what they hold."""
        state = self._driver.state
        return pb.ListShardsResponse(
            shards=shards_to_proto(state, self._driver.now_ms()), generation=state.placement.generation
        )

    async def ListModels(self, request: pb.ListModelsRequest, _: _Context) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        """List the bundles that the controller has met."""
        return pb.ListModelsResponse(models=models_to_proto(self._driver.state, self._driver.now_ms()))

    async def ListReleases(self, request: pb.ListReleasesRequest, _: _Context) -> pb.ListReleasesResponse:  # noqa: ARG002, N802
        """List what answers for every surface, what else is loaded, what shadows and gates are like."""
        placement = self._driver.state.placement
        return releases_to_proto(
            placement,
            lambda surface: self._shadows.of(surface, placement),
            lambda surface: self._gates.of(surface, placement),
        )

    async def GetPlacement(self, request: pb.GetPlacementRequest, _: _Context) -> pb.GetPlacementResponse:  # noqa: ARG002, N802
        """Return the committed placement."""
        return pb.GetPlacementResponse(placement=placement_to_proto(self._driver.state.placement))

    async def WatchPlacement(  # noqa: N802
        self, request: pb.WatchPlacementRequest, _: _Context
    ) -> AsyncIterator[pb.WatchPlacementResponse]:
        """Send the placement without its intent, unless it is known, and every one that follows."""
        async for placement in self._driver.watch(request.known_generation):
            yield pb.WatchPlacementResponse(placement=placement_to_proto(placement))

    async def PlanRebalance(  # noqa: N802
        self, request: pb.PlanRebalanceRequest, _: _Context
    ) -> pb.PlanRebalanceResponse:
        """Plan a rebalance, or the moves that are named, without applying it."""
        forecast = self._driver.plan(moves_from_proto(request.moves))
        return pb.PlanRebalanceResponse(plan=forecast_to_proto(forecast))

    async def ApplyPlan(self, request: pb.ApplyPlanRequest, _: _Context) -> pb.ApplyPlanResponse:  # noqa: N802
        """Start to carry out a plan."""
        return pb.ApplyPlanResponse(operation=await self._changed(request))

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

    async def CancelOperation(  # noqa: N802
        self, request: pb.CancelOperationRequest, _: _Context
    ) -> pb.CancelOperationResponse:
        """Take back what a running operation asked for."""
        operation = await self._driver.cancel(request.operation_id)
        return pb.CancelOperationResponse(operation=operation_to_proto(operation))

    async def DrainShard(self, request: pb.DrainShardRequest, _: _Context) -> pb.DrainShardResponse:  # noqa: N802
        """Start to empty a shard."""
        return pb.DrainShardResponse(operation=await self._changed(request))

    async def UndrainShard(self, request: pb.UndrainShardRequest, _: _Context) -> pb.UndrainShardResponse:  # noqa: N802
        """Let a drained shard hold models again."""
        return pb.UndrainShardResponse(operation=await self._changed(request))

    async def RestartShards(self, request: pb.RestartShardsRequest, _: _Context) -> pb.RestartShardsResponse:  # noqa: N802
        """Start to restart shards, one after the other."""
        return pb.RestartShardsResponse(operation=await self._changed(request))

    async def FreezeCluster(self, request: pb.FreezeClusterRequest, _: _Context) -> pb.FreezeClusterResponse:  # noqa: N802
        """Stop, or let go on, what the controller does by itself."""
        return pb.FreezeClusterResponse(operation=await self._changed(request))

    async def HoldModel(self, request: pb.HoldModelRequest, _: _Context) -> pb.HoldModelResponse:  # noqa: N802
        """Start to hold a bundle in a way of its own."""
        return pb.HoldModelResponse(operation=await self._changed(request))

    async def DropModel(self, request: pb.DropModelRequest, _: _Context) -> pb.DropModelResponse:  # noqa: N802
        """Start to let go a bundle that was held on its own."""
        return pb.DropModelResponse(operation=await self._changed(request))

    async def ScaleShards(self, request: pb.ScaleShardsRequest, _: _Context) -> pb.ScaleShardsResponse:  # noqa: N802
        """Start to bring the cluster to a number of shards."""
        return pb.ScaleShardsResponse(operation=await self._changed(request))

    async def DeployRelease(self, request: pb.DeployReleaseRequest, _: _Context) -> pb.DeployReleaseResponse:  # noqa: N802
        """Start to bring a release live, or to let it answer a share."""
        return pb.DeployReleaseResponse(operation=await self._changed(request))

    async def RollbackRelease(  # noqa: N802
        self, request: pb.RollbackReleaseRequest, _: _Context
    ) -> pb.RollbackReleaseResponse:
        """Start to flip a surface back to the release before."""
        return pb.RollbackReleaseResponse(operation=await self._changed(request))

    async def SetTraffic(self, request: pb.SetTrafficRequest, _: _Context) -> pb.SetTrafficResponse:  # noqa: N802
        """Set the share of a release that is loaded."""
        return pb.SetTrafficResponse(operation=await self._changed(request))

    async def SetAlias(self, request: pb.SetAliasRequest, _: _Context) -> pb.SetAliasResponse:  # noqa: N802
        """Name a surface, or one release of it, in another way."""
        return pb.SetAliasResponse(operation=await self._changed(request))

    async def ReportShadow(self, request: pb.ReportShadowRequest, _: _Context) -> pb.ReportShadowResponse:  # noqa: N802
        """Add what a router has compared to what others have."""
        shadows, gates = shadow_reports_from_proto(request), gate_reports_from_proto(request)
        placement = self._driver.state.placement
        self._shadows.add(shadows, placement)
        self._gates.add(gates, placement)
        return pb.ReportShadowResponse()

    async def _changed(self, request: object) -> pb.Operation:
        """Return the operation that a request has become; every change of a cluster comes through here."""
        return operation_to_proto(await self._driver.request(change_from_proto(request)))


def register(driver: ControllerDriver) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the service to a server."""

    def add(server: grpc.aio.Server) -> None:
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(driver), server)

    return add
