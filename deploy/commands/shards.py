"""`headrace shards`: what holds the models, and what operators want of it."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WaitOption,
    WorkspaceOption,
    controller_address,
    model_version,
)
from deploy.commands.simulate import simulate_command
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.plan_files import read_plan, write_plan
from deploy.planning import apply_now, apply_plan, planned
from deploy.views.plans import plan_views
from deploy.views.shards import replicas_table, shard_facts, shards_table
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import NotFound

app = typer.Typer(no_args_is_help=True)
app.command("simulate")(simulate_command)

ShardArgument = Annotated[str, typer.Argument(metavar="SHARD", help="Id of the shard, for instance shard-1.")]


@app.callback()
def shards() -> None:
    """List, plan, move, drain, freeze and restart shards."""


@app.command("list")
def list_shards(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show every shard, its state, its memory and its load."""
    address = controller_address(controller, workspace)
    response = ask(address, lambda stub: stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S))
    title = f"Shards (placement generation {response.generation})"
    show(response, shards_table(response.shards, title), as_json=as_json)


@app.command("show")
def show_shard(
    shard: ShardArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one shard and every bundle that it holds."""
    address = controller_address(controller, workspace)
    response = ask(address, lambda stub: stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S))
    found = next((s for s in response.shards if s.shard_id == shard), None)
    if found is None:
        raise NotFound("shard", shard)
    show(found, shard_facts(found), replicas_table(found.replicas), as_json=as_json)


@app.command("plan")
def plan(
    out: Annotated[Path | None, typer.Option(help="File to write the plan to, for `shards apply`.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what a rebalance would do, move by move, without doing it."""
    found = ask(controller_address(controller, workspace), lambda stub: planned(stub, ()))
    if out:
        write_plan(out, found)
    show(found, *plan_views(found), as_json=as_json)


@app.command("apply")
def apply(
    file: Annotated[
        Path | None, typer.Argument(help="A plan of `shards plan --out`; without one it is planned now.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Carry a plan out, each move made before it is broken; refused if the placement has moved on since."""
    wanted = read_plan(file) if file else None
    address = controller_address(controller, workspace)
    if wanted is None:
        apply_now(address, (), wait=wait, as_json=as_json)
    else:
        apply_plan(address, wanted, wait=wait, as_json=as_json)


@app.command("move")
def move(
    model: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="The bundle.")],
    from_shard: Annotated[str, typer.Argument(metavar="FROM", help="Shard that lets it go.")],
    to_shard: Annotated[str, typer.Argument(metavar="TO", help="Shard that takes it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do and stop there.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Move one bundle from a shard to another; it answers all the while."""
    address = controller_address(controller, workspace)
    wanted = pb.Move(model=model_version(model), from_shard_id=from_shard, to_shard_id=to_shard)
    if dry_run:
        found = ask(address, lambda stub: planned(stub, (wanted,)))
        show(found, *plan_views(found), as_json=as_json)
        return
    apply_now(address, (wanted,), wait=wait, as_json=as_json)


@app.command("drain")
def drain(
    shard: ShardArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Move everything off a shard and keep it empty until it is undrained."""
    request = pb.DrainShardRequest(shard_id=shard)
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.DrainShard(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )


@app.command("undrain")
def undrain(
    shard: ShardArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a drained shard hold models again."""
    request = pb.UndrainShardRequest(shard_id=shard)
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.UndrainShard(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )


@app.command("restart")
def restart(
    shard: Annotated[
        list[str] | None, typer.Argument(metavar="[SHARD]...", help="Ids, in order; none for every shard.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Restart shards one after the other, each once its models answer elsewhere."""
    request = pb.RestartShardsRequest(shard_ids=shard or ())
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.RestartShards(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )


@app.command("freeze")
def freeze(
    off: Annotated[bool, typer.Option("--off", help="End the freeze.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Stop whatever the controller does by itself, and most of what it is asked for, until --off."""
    request = pb.FreezeClusterRequest(frozen=not off)
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.FreezeCluster(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )
