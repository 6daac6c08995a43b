"""`headrace bundle`: sign bundles, and check their signatures."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, model_version
from deploy.workspace import Workspace
from services.durable_file import replace_file
from shards.bundle import open_bundle
from shards.errors import FieldViolation, InvalidInput
from shards.manifest import MANIFEST_FILE, SIGNATURE_FILE
from shards.release import ModelVersion
from shards.signature import read_key, read_trusted_keys, sign

app = typer.Typer(help="Sign bundles, and check their signatures.", no_args_is_help=True)

_Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL@VERSION", help="Default: every bundle.")]


@app.command("sign")
def sign_bundles(
    models: _Models = None,
    key: Annotated[Path, typer.Option(help="Private key, from `headrace keys make`.")] = Path("signing.pem"),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Verify bundles of the workspace to the last byte, and sign them anew."""
    private = read_key(key)
    for path, model in _found(workspace, models):
        open_bundle(path, model)
        replace_file(path / SIGNATURE_FILE, sign((path / MANIFEST_FILE).read_bytes(), private))
        typer.echo(f"signed {model}")


@app.command()
def verify(
    trusted_keys: Annotated[Path, typer.Option(help="File of the keys to trust.")],
    models: _Models = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Check bundles of the workspace and their signatures, as shards do with --trusted-keys."""
    trusted = read_trusted_keys(trusted_keys)
    for path, model in _found(workspace, models):
        open_bundle(path, model, trusted)
        typer.echo(f"trusted {model}")


def _found(workspace: Path, named: list[str] | None) -> list[tuple[Path, ModelVersion]]:
    root = Workspace(workspace).models_dir
    if named:
        asked = [model_version(name) for name in named]
        wanted = [ModelVersion(model.model, model.version) for model in asked]
    else:
        manifests = sorted(root.glob(f"[!.]*/[!.]*/{MANIFEST_FILE}"))
        wanted = [ModelVersion(path.parent.parent.name, path.parent.name) for path in manifests]
    if not wanted:
        raise InvalidInput(FieldViolation("workspace", f"no bundle is in {root}"))
    return [(root / model.model / model.version, model) for model in wanted]
