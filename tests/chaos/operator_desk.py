"""What an operator asks of the cluster's controller, whichever process that is now, until it answers."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub
from services.chassis import channel_options
from services.codec import release_to_proto
from shards.release import Release
from tests.chaos.full_strength import Sight

T = TypeVar("T")

_TIMEOUT_S = 10.0
_LOOK_S = 1.0
_PATIENCE_S = 60.0
_OPERATION_S = 180.0
_LOOK_EVERY_S = 0.05


class OperatorDesk:
    """Asks over one channel; changes wait for a controller, looks do not."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=channel_options())
        self.stub = ClusterServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def look(self) -> Sight | None:
        """Return the cluster as its controller sees it, None while nobody answers."""
        try:
            shards = self.stub.ListShards(pb.ListShardsRequest(), timeout=_LOOK_S).shards
            placement = self.stub.GetPlacement(pb.GetPlacementRequest(), timeout=_LOOK_S).placement
        except grpc.RpcError:
            return None
        return Sight(shards=list(shards), placement=placement)

    def until(self, condition: Callable[[Sight], bool], within_s: float, what: str) -> Sight:
        """Return the first sight that satisfies the condition; raises TimeoutError when none does."""
        late_s = time.monotonic() + within_s
        sight: Sight | None = None
        while time.monotonic() < late_s:
            sight = self.look()
            if sight and condition(sight):
                return sight
            time.sleep(_LOOK_EVERY_S)
        raise TimeoutError(
            f"{what}: not within {within_s:.0f} s; {sight.summary() if sight else 'no answer'}"
        )

    def plan(self, moves: Sequence[pb.Move]) -> pb.Plan:
        """Return the plan of these moves, or of a rebalance without any."""
        request = pb.PlanRebalanceRequest(moves=moves)
        return self._ask(lambda: self.stub.PlanRebalance(request, timeout=_TIMEOUT_S).plan)

    def apply(self, plan: pb.Plan) -> None:
        """Apply a plan and stay until that is done."""
        self._carry_out(self.stub.ApplyPlan, pb.ApplyPlanRequest(plan=plan))

    def drain(self, shard_id: str) -> None:
        """Empty a shard."""
        self._carry_out(self.stub.DrainShard, pb.DrainShardRequest(shard_id=shard_id))

    def undrain(self, shard_id: str) -> None:
        """Use a drained shard again."""
        self._carry_out(self.stub.UndrainShard, pb.UndrainShardRequest(shard_id=shard_id))

    def scale(self, shards: int) -> None:
        """Have so many shards."""
        self._carry_out(self.stub.ScaleShards, pb.ScaleShardsRequest(shards=shards))

    def restart(self) -> None:
        """Restart every shard, one after the other."""
        self._carry_out(self.stub.RestartShards, pb.RestartShardsRequest())

    def deploy(self, release: Release) -> None:
        """Bring a release live."""
        self._carry_out(self.stub.DeployRelease, pb.DeployReleaseRequest(release=release_to_proto(release)))

    def roll_back(self, surface: str) -> None:
        """Bring the release before live."""
        self._carry_out(self.stub.RollbackRelease, pb.RollbackReleaseRequest(surface=surface))

    def commits(self, within_s: float) -> None:
        """Have something committed that changes nothing: frozen, and not frozen again."""
        late_s = time.monotonic() + within_s
        for frozen in (True, False):
            request = pb.FreezeClusterRequest(frozen=frozen)
            while True:
                try:
                    self._carry_out(self.stub.FreezeCluster, request, timeout_s=2.0)
                    break
                except (grpc.RpcError, RuntimeError):
                    if time.monotonic() > late_s:
                        raise
                    time.sleep(_LOOK_EVERY_S)

    def _carry_out(self, method: Callable[..., Any], request: object, timeout_s: float = _TIMEOUT_S) -> None:
        """Ask for a change and stay with it to its end; raises RuntimeError unless it succeeds."""
        operation: pb.Operation = method(request, timeout=timeout_s).operation
        late_s = time.monotonic() + _OPERATION_S
        while operation.state == pb.OPERATION_STATE_RUNNING:
            if time.monotonic() > late_s:
                raise RuntimeError(f"{operation.kind} is still at {operation.detail!r}")
            time.sleep(_LOOK_EVERY_S)
            operation = self._operation(operation.operation_id)
        if operation.state != pb.OPERATION_STATE_SUCCEEDED:
            raise RuntimeError(f"{operation.kind}: {operation.detail}")

    def _operation(self, operation_id: str) -> pb.Operation:
        request = pb.GetOperationRequest(operation_id=operation_id)
        return self._ask(lambda: self.stub.GetOperation(request, timeout=_TIMEOUT_S).operation)

    def _ask(self, question: Callable[[], T]) -> T:
        """Return the answer; asks again while no controller answers."""
        late_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return question()
            except grpc.RpcError as error:
                gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if not gone or time.monotonic() > late_s:
                    raise
                time.sleep(_LOOK_EVERY_S)
