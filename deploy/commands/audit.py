"""`headrace audit`: what operators did to a cluster."""

import json
from collections import deque
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from deploy.views.table import new_table
from deploy.workspace import Workspace
from services.audit_log import AuditEntry, read_audit


def audit(
    caller: Annotated[str, typer.Option(help="Only what this caller did.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused or failed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest entries to show.")] = 50,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries of a workspace's audit log, oldest first; --json gives them whole."""
    entries = (
        entry
        for entry in read_audit(Workspace(workspace).audit_path)
        if (not caller or entry.caller == caller) and (not refused or entry.result != "accepted")
    )
    newest = deque(entries, maxlen=limit)
    if as_json:
        for entry in newest:
            typer.echo(json.dumps(asdict(entry), ensure_ascii=False, sort_keys=True))
        return
    _print(newest)


def _print(entries: "deque[AuditEntry]") -> None:
    headings = ("when", "caller", "from", "what", "request", "result", "detail")
    table = new_table("Audit log", *headings, long=("request", "detail"))
    for entry in entries:
        request = json.dumps(entry.request, ensure_ascii=False)
        shown = request if len(request) <= _SHOWN_CHARS else request[:_SHOWN_CHARS] + "…"
        table.add_row(
            entry.at, entry.caller or "-", entry.peer, entry.method, shown, entry.result, entry.detail
        )
    Console().print(table, highlight=False)


_SHOWN_CHARS = 120
