"""`headrace models split`: divides a retrieval model's catalogue over several bundles."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput, Unavailable
from shards.release import ModelVersion

PartitionsOption = Annotated[
    int, typer.Option("--partitions", help="Bundles that shall hold the catalogue between them.")
]


def split(
    model: Annotated[str, typer.Argument(help="NAME@VERSION of a retrieval model of the workspace.")],
    partitions: PartitionsOption,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
) -> None:
    """Write a retrieval model's partitions beside it; together they answer as it does.

    A release uses them where its channel says `"partitions"`. Partitions that are there already are kept, and
    are what is split further where the model itself is gone.
    """
    bundles = split_models(Workspace(workspace).models_dir, _model_version(model), partitions)
    if as_json:
        typer.echo(json.dumps({"model": model, "partitions": [str(bundle) for bundle in bundles]}))
    else:
        typer.echo("\n".join(map(str, bundles)))


def split_models(models_dir: Path, model: ModelVersion, partitions: int) -> tuple[ModelVersion, ...]:
    """Write the partitions, each told on standard error; raises `HeadraceError` if it cannot."""
    # Reading bundles takes torch and faiss, which no other command of this group needs.
    from shards.partitioning import split as split_bundle

    try:
        return split_bundle(
            models_dir, model, partitions, say=lambda part: typer.echo(f"wrote {part}", err=True)
        )
    except OSError as error:
        raise Unavailable(f"{error.filename or models_dir} cannot be written: {error.strerror}") from error


def _model_version(text: str) -> ModelVersion:
    name, _, version = text.partition("@")
    if any(not part or Path(part).name != part for part in (name, version)):
        raise InvalidInput(FieldViolation("model", f"{text!r} is not NAME@VERSION"))
    return ModelVersion(name, version)
