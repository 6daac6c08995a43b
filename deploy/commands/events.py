"""`headrace events`: tell a cluster what users do."""

import asyncio
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from deploy.event_lines import batches, moment_ms
from deploy.settings import caller_credentials
from deploy.workspace import Workspace
from router.client import Event, HeadraceClient, RecordResult
from services.user_history import MAX_EVENTS
from shards.errors import FieldViolation, InvalidInput

app = typer.Typer(help="Tell a cluster what users do.", no_args_is_help=True)


@app.callback()
def events() -> None:
    """Tell a cluster what users do."""


@app.command()
def record(
    file: Annotated[
        typer.FileText | None,
        typer.Argument(help="Lines of JSON: event_id, user_id, item_id, action, timestamp; - for stdin."),
    ] = None,
    user: Annotated[str, typer.Option(help="Instead of a file: who did something …")] = "",
    item: Annotated[str, typer.Option(help="… to which item …")] = "",
    action: Annotated[str, typer.Option(help="… what: click, purchase …")] = "",
    at: Annotated[str, typer.Option(help="… when, in ISO 8601; default: now.")] = "",
    event_id: Annotated[
        str, typer.Option("--id", help="… and the event's own id, which counts once; default: a new one.")
    ] = "",
    router: Annotated[str, typer.Option(help="HOST:PORT; default: the workspace's own cluster.")] = "",
    timeout_s: Annotated[float, typer.Option(min=0.001, help="For each request of 1,000 events.")] = 5.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Record events, which the next search of their users sees; what is recorded already counts once.

    A file is sent in requests of 1,000 events. Where one fails, send the whole file again.
    """
    told = {"user_id": user, "item_id": item, "action": action, "event_id": event_id}
    if (file is None) == (not any((*told.values(), at))):
        raise InvalidInput(FieldViolation("events", "come from a file, or from --user, --item and --action"))
    given = batches(file, MAX_EVENTS) if file is not None else [[_one(told, at)]]
    target = router or Workspace(workspace).running().router
    result = asyncio.run(_record(target, given, timeout_s))
    if as_json:
        typer.echo(json.dumps({"recorded": result.recorded, "duplicates": result.duplicates}))
    else:
        typer.echo(f"{result.recorded} recorded, {result.duplicates} known already")


def _one(told: dict[str, str], at: str) -> Event:
    fields: dict[str, Any] = {name: value for name, value in told.items() if value or name != "event_id"}
    try:
        return Event(**fields, timestamp_ms=moment_ms(at)) if at else Event(**fields)
    except ValueError as error:
        raise InvalidInput(FieldViolation("at", str(error))) from error


async def _record(target: str, given: Iterable[list[Event]], timeout_s: float) -> RecordResult:
    recorded = duplicates = 0
    shown = caller_credentials()
    async with HeadraceClient(target, shown.token, tls=shown.tls, timeout_s=timeout_s) as client:
        for events in given:
            result = await client.record_events(events)
            recorded += result.recorded
            duplicates += result.duplicates
    return RecordResult(recorded=recorded, duplicates=duplicates)
