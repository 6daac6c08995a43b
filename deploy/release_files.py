"""The releases of a workspace: `releases/<surface>.json`, each a `headrace.v1.Release` in protobuf's JSON."""

from pathlib import Path

from google.protobuf import json_format

from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2
from services.codec import release_from_proto, release_to_proto
from services.durable_file import replace_file
from shards.errors import FieldViolation, InvalidInput, NotFound
from shards.release import Release


def surfaces(workspace: Workspace) -> tuple[str, ...]:
    """Return the surfaces that the workspace has a release for, sorted."""
    return tuple(sorted(path.stem for path in workspace.releases_dir.glob("*.json")))


def only_surface(workspace: Workspace) -> str:
    """Return the workspace's one surface. Raises `InvalidInput` if there are several or none."""
    found = surfaces(workspace)
    if len(found) != 1:
        problem = f"must be one of {', '.join(found)}" if found else f"{workspace.root} has no release yet"
        raise InvalidInput(FieldViolation("surface", problem))
    return found[0]


def read_release(workspace: Workspace, surface: str) -> Release:
    """Return the release of a surface.

    Raises `NotFound` if there is none and `InvalidInput` naming the file if it cannot be read.
    """
    path = _path(workspace, surface)
    if not path.is_file():
        raise NotFound("surface", surface)
    return read_release_file(path)


def read_release_file(path: Path) -> Release:
    """Return the release in a file. Raises `InvalidInput` naming the file if it cannot be read."""
    try:
        message = json_format.Parse(path.read_bytes(), cluster_service_pb2.Release())
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidInput(FieldViolation(str(path), f"is not a release: {error}")) from error
    return release_from_proto(message)


def write_release(workspace: Workspace, release: Release) -> Path:
    """Write the release of its surface, in place of the one before; returns the file."""
    path = _path(workspace, release.surface)
    replace_file(path, json_format.MessageToJson(release_to_proto(release)).encode() + b"\n")
    return path


def keep_live(workspace: Workspace, found: cluster_service_pb2.ListReleasesResponse, surface: str) -> None:
    """Keep what is live on a surface for the workspace's next `up`."""
    for each in found.surfaces:
        if each.surface == surface and each.HasField("live"):
            write_release(workspace, release_from_proto(each.live))


def _path(workspace: Workspace, surface: str) -> Path:
    if Path(surface).name != surface:
        raise InvalidInput(FieldViolation("surface", f"{surface!r} is not fit for the name of a file"))
    return workspace.releases_dir / f"{surface}.json"
