"""A cluster for people: tables of its processes, shards, models and releases."""

from collections.abc import Iterable

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2

_STATE_STYLES = {"serving": "green", "ready": "green", "down": "red", "failed": "red"}

_NUMERIC = frozenset({"pid", "memory", "of", "on disk", "shards"})
_LONG = frozenset({"model", "live on", "pins"})
"""Columns that may take several lines where the terminal is narrow."""


def show(answer: Message, table: Table, *, as_json: bool) -> None:
    """Print what a controller answered: for scripts every field as JSON, for people the table."""
    if as_json:
        typer.echo(MessageToJson(answer, always_print_fields_with_no_presence=True))
    else:
        Console().print(table)


def processes_table(rows: Iterable[tuple[str, int, int]]) -> Table:
    """Return a table of name, process id and resident bytes."""
    table = _table("Processes", "process", "pid", "memory")
    for name, pid, memory_bytes in rows:
        table.add_row(name, str(pid), _megabytes(memory_bytes) if memory_bytes else Text("gone", "red"))
    return table


def shards_table(shards: Iterable[pb.Shard]) -> Table:
    """Return a table of the shards and what they hold."""
    table = _table("Shards", "shard", "state", "address", "pid", "ready", "memory", "of")
    for shard in shards:
        ready = sum(r.state == shard_service_pb2.REPLICA_STATE_READY for r in shard.replicas)
        table.add_row(
            shard.shard_id,
            _state(pb.ShardState.Name(shard.state), "SHARD_STATE_"),
            shard.address,
            str(shard.pid or ""),
            f"{ready} of {len(shard.replicas)}",
            _megabytes(shard.memory_bytes),
            _megabytes(shard.capacity_bytes),
        )
    return table


def models_table(models: Iterable[pb.Model]) -> Table:
    """Return a table of the bundles, where they are and what they are for."""
    table = _table("Models", "model", "version", "stage", "on disk", "shards", "live on")
    for model in models:
        table.add_row(
            model.model.model,
            model.model.version,
            types_pb2.Stage.Name(model.stage).removeprefix("STAGE_").lower().replace("_", "-"),
            _megabytes(model.size_bytes),
            str(len(model.shard_ids)),
            ", ".join(model.surfaces) or "-",
        )
    return table


def releases_table(placement: pb.Placement) -> Table:
    """Return a table of the live releases."""
    table = _table(f"Releases (placement generation {placement.generation})", "surface", "live", "pins")
    for release in placement.releases:
        pinned = [channel.model for channel in release.channels]
        pinned += [s.model for s in (release.pre_ranker, release.ranker) if s.model.model]
        table.add_row(release.surface, release.version, ", ".join(f"{m.model}@{m.version}" for m in pinned))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        numeric = heading in _NUMERIC
        table.add_column(
            heading, justify="right" if numeric else "left", overflow="fold", no_wrap=heading not in _LONG
        )
    return table


def _state(name: str, prefix: str) -> Text:
    state = name.removeprefix(prefix).lower()
    return Text(state, _STATE_STYLES.get(state, "yellow"))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MB"
