"""A project: a folder with `headrace.toml`, the data of a shop, and the workspace of its cluster.

    my-shop/
      headrace.toml     what is trained and how it is served
      data/             the four tables, checked
      .headrace/        bundles, the release, users, the state of the cluster

A workspace belongs to the project in whose folder it lies, so that every command that works in a workspace
knows the project's surface, recipe and data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.project_file import ProjectFile, project_file, read_document
from deploy.workspace import PROJECT_FILE, PROJECT_WORKSPACE, Workspace
from shards.errors import FieldViolation, InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project's folder, absolute, and what its file says."""

    folder: Path
    file: ProjectFile
    document: Mapping[str, Any]
    """The file as it was parsed."""

    @property
    def path(self) -> Path:
        """Return its `headrace.toml`."""
        return self.folder / PROJECT_FILE

    @property
    def surface(self) -> str:
        """Return the surface that it serves."""
        return self.file.surface

    @property
    def data_dir(self) -> Path:
        """Return the folder of its four tables."""
        return self.folder / self.file.data.folder

    @property
    def workspace(self) -> Workspace:
        """Return the folders of its cluster."""
        return Workspace(self.folder / PROJECT_WORKSPACE)

    def cluster_settings(self) -> Mapping[str, Any]:
        """Return the settings of its cluster that its file names."""
        return self.file.cluster_settings(self.folder)


def read_project(folder: Path) -> Project:
    """Return the project in a folder. Raises `InvalidInput` that names the file and the key at fault."""
    path = folder.absolute() / PROJECT_FILE
    document = read_document(path)
    try:
        return Project(folder=folder.absolute(), file=project_file(document), document=document)
    except ValueError as error:
        raise InvalidInput(FieldViolation(str(path), str(error))) from error


def project_of(folders: Workspace) -> Project | None:
    """Return the project to which a workspace belongs, None for one that stands alone."""
    root = folders.root.absolute()
    if root.name != PROJECT_WORKSPACE or not (root.parent / PROJECT_FILE).is_file():
        return None
    return read_project(root.parent)


def project_with(surface: str, folders: Workspace) -> Project | None:
    """Return the project to which a workspace belongs where the surface is its own, None elsewhere."""
    project = project_of(folders)
    return project if project is not None and project.surface == surface else None
