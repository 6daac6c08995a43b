"""`headrace members`: who of a cluster is there, as Consul's health checks see it."""

import asyncio
import json
import random
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.commands.options import (
    ConsulCaOption,
    ConsulCertOption,
    ConsulKeyOption,
    ConsulPrefixOption,
    JsonOption,
)
from deploy.settings import agent_settings
from services.consul_client import ConsulClient
from services.consul_leadership import leader
from services.consul_membership import Member, members, watch_members
from services.consul_registration import ServiceName
from services.consul_settings import ConsulSettings
from shards.errors import FieldViolation, InvalidInput

_PREFIX = "headrace-"


def listed(
    consul: Annotated[str, typer.Option("--consul", help="[https://]HOST:PORT of a Consul agent.")],
    consul_prefix: ConsulPrefixOption = "headrace",
    consul_ca: ConsulCaOption = None,
    consul_cert: ConsulCertOption = None,
    consul_key: ConsulKeyOption = None,
    follow: Annotated[
        str, typer.Option(help="router, shard or controller: print who of them is in use, at each change.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show who leads, and routers, shards and controllers with their health.

    With --follow, one line of JSON a change, name to HOST:PORT: for whoever balances load over routers.
    Who comes and goes all the time is left out until it stays, and who has only just gone is kept a while.
    """
    try:
        settings = agent_settings(
            consul,
            consul_prefix,
            ca_path=_text(consul_ca),
            cert_path=_text(consul_cert),
            key_path=_text(consul_key),
        )
        followed = ServiceName(_PREFIX + follow) if follow else None
    except ValueError as error:
        raise InvalidInput(FieldViolation("settings", str(error))) from error
    if followed:
        asyncio.run(_follow(settings, followed))
        return
    leading, found = asyncio.run(_look(settings))
    if as_json:
        typer.echo(json.dumps({"leader": leading, "members": [_row(kind, m) for kind, m in found]}, indent=2))
    else:
        Console().print(_table(leading, found))


async def _look(settings: ConsulSettings) -> tuple[str | None, list[tuple[str, Member]]]:
    async with ConsulClient(settings) as client:
        found = [
            (kind.removeprefix(_PREFIX), member)
            for kind in ServiceName
            for member in await members(client, kind)
        ]
        return await leader(client), found


async def _follow(settings: ConsulSettings, service: ServiceName) -> None:
    async with ConsulClient(settings) as client:
        async for addresses in watch_members(client, service, random.Random()):
            typer.echo(json.dumps(dict(sorted(addresses.items()))))


def _row(kind: str, member: Member) -> dict[str, object]:
    return {"kind": kind, "name": member.name, "address": member.address, "passing": member.passing}


def _table(leading: str | None, found: list[tuple[str, Member]]) -> Table:
    table = Table("kind", "name", "address", "health", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title, table.title_justify = f"Members (leader: {leading or 'none'})", "left"
    for kind, member in found:
        health = Text("passing", "green") if member.passing else Text("critical", "red")
        table.add_row(kind, member.name, member.address or "-", health)
    return table


def _text(path: Path | None) -> str:
    return str(path or "")
