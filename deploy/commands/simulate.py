"""`headrace shards simulate`: what a load would do to a placement, before anything is applied."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import ask
from deploy.recorded_load import read_load
from deploy.simulated_cluster import ask_running_cluster, described_cluster
from deploy.simulation_picture import draw
from deploy.simulation_view import simulation_json, simulation_table
from shards.errors import FieldViolation, InvalidInput
from shards.planner import Churn, Limits
from shards.simulation import RoundFigures, Scenario, recorded_load, simulate, zipf_load


def simulate_command(
    shards: Annotated[int, typer.Option(min=0, help="Describe a cluster of so many shards …")] = 0,
    models: Annotated[int, typer.Option(min=0, help="… and models. Without: the running cluster.")] = 0,
    nodes: Annotated[int, typer.Option(help="Nodes of a described cluster; 0: one a shard.")] = 0,
    memory_mb: Annotated[float, typer.Option(help="Median memory of its models.")] = 40.0,
    capacity_mb: Annotated[float, typer.Option(help="Memory of each of its shards.")] = 8192.0,
    load: Annotated[Path | None, typer.Option(help="A recorded load, .jsonl or .csv.", exists=True)] = None,
    zipf: Annotated[float, typer.Option(help="Exponent of the generated load over models.")] = 1.1,
    rate: Annotated[float, typer.Option(help="Its requests per second in all.")] = 1000.0,
    drift: Annotated[float, typer.Option(help="Share of models that change rank each round.")] = 0.05,
    rounds: Annotated[int, typer.Option(min=1, help="Its rounds.")] = 20,
    round_s: Annotated[float, typer.Option(help="Seconds of a round.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is generated.")] = 0,
    min_replicas: Annotated[int, typer.Option(min=1, help="Fewest replicas of a model.")] = 2,
    max_replicas: Annotated[int, typer.Option(min=1, help="Most replicas of a model.")] = 2,
    load_per_replica: Annotated[float, typer.Option(help="Requests/s that ask for one more.")] = math.inf,
    max_moves: Annotated[int | None, typer.Option(min=0, help="Churn budget: moves a round.")] = None,
    max_moved_mb: Annotated[int | None, typer.Option(min=0, help="Churn budget: MB a round.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it too, as .svg or .png.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Replay a load against a placement, described or running, and show what the planner would do."""
    if bool(shards) != bool(models):
        raise InvalidInput(FieldViolation("--shards, --models", "describe a cluster only together"))
    if shards:
        cluster = described_cluster(
            shards=shards,
            nodes=nodes or shards,
            models=models,
            memory_mb=memory_mb,
            capacity_mb=capacity_mb,
            seed=seed,
        )
    else:
        cluster = ask(controller_address(controller, workspace), ask_running_cluster)
    names = sorted(facts.model for facts in cluster.models)
    try:
        limits = Limits(
            min_replicas=min_replicas,
            max_replicas=max(min_replicas, max_replicas),
            load_per_replica=load_per_replica,
            churn=Churn(moves=max_moves, size_bytes=None if max_moved_mb is None else max_moved_mb * 2**20),
        )
        scenario = Scenario(
            shards=cluster.shards,
            models=cluster.models,
            limits=limits,
            round_s=round_s,
            placement=cluster.placement,
        )
        if load is None:
            rates = zipf_load(names, rounds=rounds, rate=rate, exponent=zipf, drift=drift, seed=seed)
        else:
            rates = recorded_load(read_load(load, names), round_s=round_s)
        figures = tuple(simulate(scenario, rates))
    except ValueError as error:
        raise InvalidInput(FieldViolation("simulation", str(error))) from error
    _show(figures, picture, as_json=as_json)


def _show(figures: Sequence[RoundFigures], picture: Path | None, *, as_json: bool) -> None:
    if picture and figures:
        draw(figures, picture)
    if as_json:
        typer.echo(simulation_json(figures))
    else:
        Console().print(simulation_table(figures))
