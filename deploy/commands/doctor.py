"""`headrace doctor`: looks at everything that a cluster needs, and says what to do."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import typer
from rich.console import Console
from rich.text import Text

from deploy.checkup import Finding, Look, broken, look_at, python_and_packages
from deploy.checkup_cluster import consul, ports, ray, users
from deploy.checkup_machine import gpu, machine
from deploy.checkup_project import data, project_file, releases
from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, ProjectOption, WorkspaceOption
from deploy.project import Project, project_of
from deploy.project_preparing import with_project
from deploy.settings import ClusterSettings
from deploy.views.table import new_table
from deploy.workspace import Workspace, workspace_of
from shards.errors import InvalidInput

_COLOURS = {"ok": "green", "note": "yellow", "broken": "red"}


def doctor(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check Python, the machine, ports, GPU, Ray, Consul, data, bundles, releases and users.

    Every problem comes with what to do. The exit code is 1 where something is broken.
    """
    found = examine(workspace_of(project, workspace))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        _show(found)
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(1)


def examine(folders: Workspace) -> list[Finding]:
    """Return what is found of a workspace, its project and this machine."""
    settings = ClusterSettings(workspace=str(folders.root.absolute()))
    project, unread = _project(folders)
    if project is not None:
        try:
            settings = with_project(settings, project, frozenset())
        except InvalidInput as error:
            unread = str(error)
    file = [broken("project", unread, "put the file right")] if unread else []
    looks: tuple[tuple[str, Look], ...] = (
        ("python", python_and_packages),
        ("machine", partial(machine, settings)),
        ("gpu", partial(gpu, settings)),
        ("ports", partial(ports, settings)),
        ("ray", partial(ray, settings)),
        ("consul", partial(consul, settings)),
        ("project", partial(project_file, project)),
        ("data", partial(data, project)),
        ("release", partial(releases, folders, project)),
        ("users", partial(users, settings)),
    )
    return [*file, *(finding for subject, look in looks for finding in look_at(subject, look))]


def _project(folders: Workspace) -> tuple[Project | None, str]:
    try:
        return project_of(folders), ""
    except InvalidInput as error:
        return None, str(error)


def _show(found: Sequence[Finding]) -> None:
    table = new_table("", "", "looked at", "found, and what to do", long=("found, and what to do",))
    for finding in found:
        said = Text(finding.found)
        if finding.advice:
            said.append(f"\n→ {finding.advice}", _COLOURS[finding.state])
        table.add_row(Text(finding.state, _COLOURS[finding.state]), finding.subject, said)
    Console().print(table)
    counts = Counter(finding.state for finding in found)
    typer.echo(f"{counts['broken']} broken, {counts['note']} to note, {counts['ok']} well")
