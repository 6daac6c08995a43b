"""`headrace scale`: the number of shards."""

from typing import Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WaitOption,
    WorkspaceOption,
    controller_address,
)
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from protos.headrace.v1 import cluster_service_pb2 as pb


def scale(
    shards: Annotated[int, typer.Option("--shards", help="Shards wanted.")],
    gpu_fraction: Annotated[
        float | None, typer.Option("--gpu-fraction", help="Share of a GPU for each, above 0 and at most 1.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Set the number of shards; those that are too many are drained first, the newest first."""
    request = pb.ScaleShardsRequest(shards=shards, gpu_fraction=gpu_fraction)
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.ScaleShards(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )
