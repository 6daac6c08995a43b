"""`headrace models`: the bundles that a cluster knows, and how it holds them."""

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
from deploy.commands.split import split
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.views.models import model_facts, model_replicas, models_table
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import NotFound

app = typer.Typer(no_args_is_help=True)
app.command("split")(split)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL@VERSION", help="The bundle, for instance ranker@7.")
]


@app.callback()
def models() -> None:
    """List models, load, pin and unload them."""


@app.command("list")
def list_models(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show every model, its stage, its memory and how many shards can answer for it."""
    response = _listed(controller_address(controller, workspace))
    show(response, models_table(response.models), as_json=as_json)


@app.command("show")
def show_model(
    model: ModelArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one bundle, and its replicas with their state, memory and requests."""
    found = _known(controller_address(controller, workspace), model)
    if found is None:
        raise NotFound("model", model)
    replicas = [model_replicas(found)] if found.replicas else []
    show(found, model_facts(found), *replicas, as_json=as_json)


@app.command("load")
def load(
    model: ModelArgument,
    min_replicas: Annotated[int, typer.Option(min=0, help="Fewest replicas; 0: the cluster's default.")] = 0,
    max_replicas: Annotated[int, typer.Option(min=0, help="Most replicas; 0: the cluster's default.")] = 0,
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Load it when first asked for; it may be evicted again.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Hold a bundle on its own account, whether a release pins it or not."""
    policy = pb.ModelPolicy(
        model=model_version(model),
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        on_demand=on_demand,
        standalone=True,
    )
    _hold(controller_address(controller, workspace), policy, wait=wait, as_json=as_json)


@app.command("pin")
def pin(
    model: ModelArgument,
    off: Annotated[bool, typer.Option("--off", help="End that.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Never evict a bundle, and never load it only on demand; otherwise it is held as before."""
    address = controller_address(controller, workspace)
    policy = pb.ModelPolicy(model=model_version(model))
    known = _known(address, model)
    if known is not None and known.HasField("policy"):
        policy.CopyFrom(known.policy)
    # A bundle that nothing else holds would otherwise be pinned nowhere.
    policy.standalone = policy.standalone or known is None or not known.shard_ids
    policy.pinned = not off
    _hold(address, policy, wait=wait, as_json=as_json)


@app.command("unload")
def unload(
    model: ModelArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """End what `load` and `pin` began; a bundle that a release pins stays."""
    request = pb.DropModelRequest(model=model_version(model))
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.DropModel(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )


def _listed(address: str) -> pb.ListModelsResponse:
    return ask(address, lambda stub: stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S))


def _known(address: str, name: str) -> pb.Model | None:
    wanted = model_version(name)
    return next((m for m in _listed(address).models if m.model == wanted), None)


def _hold(address: str, policy: pb.ModelPolicy, *, wait: bool, as_json: bool) -> None:
    request = pb.HoldModelRequest(policy=policy)
    carry_out(
        address, lambda stub: stub.HoldModel(request, timeout=CHANGE_TIMEOUT_S), wait=wait, as_json=as_json
    )
