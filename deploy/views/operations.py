"""Operations: what was asked for, how far it is and how it ended."""

import time
from collections.abc import Iterable
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from deploy.views.plans import moves_table
from deploy.views.table import facts, new_table, seconds_of, span, state_text, titled
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import types_pb2

SHORT_ID = 8
"""Letters of an operation's id that tables show; commands take any that name only one."""

_ROLES = {pb.RELEASE_ROLE_CANARY: "canary", pb.RELEASE_ROLE_SHADOW: "shadow"}


def operations_table(operations: Iterable[pb.Operation], title: str = "Operations") -> Table:
    """Return a table of operations, a line each."""
    headings = ("id", "what", "state", "steps", "started", "took")
    table = new_table(title, *headings, numeric=("steps", "took"), long=("what",))
    for operation in operations:
        table.add_row(
            operation.operation_id[:SHORT_ID],
            titled(what(operation), operation.detail),
            _state(operation),
            steps(operation),
            _moment(operation, "%H:%M:%S"),
            took(operation),
        )
    return table


def operation_facts(operation: pb.Operation) -> list[RenderableType]:
    """Return all there is to know of one operation, with the moves of a plan."""
    known = facts(
        what(operation),
        ("id", operation.operation_id),
        ("kind", operation.kind),
        ("state", _state(operation)),
        ("steps", steps(operation)),
        ("started", _moment(operation, "%Y-%m-%d %H:%M:%S")),
        ("took", took(operation)),
        ("detail", operation.detail),
        *_quality(operation),
    )
    moves = operation.apply_plan.plan.moves if operation.HasField("apply_plan") else ()
    return [known, moves_table(moves)] if moves else [known]


def _quality(operation: pb.Operation) -> list[tuple[str, str]]:
    """Return how a release that goes live compared with what was live, and why it did so if it was worse."""
    change = operation.WhichOneof("change")
    quality = {
        "deploy_release": operation.deploy_release.release.quality,
        "set_traffic": operation.set_traffic.quality,
    }.get(change or "")
    if quality is None:
        return []
    figures = ", ".join(f"{each.name} {each.gain:+.4f}" for each in quality.measures)
    told = [("against", f"{quality.live_version}: {figures}")] if figures else []
    return [*told, ("overridden", quality.override_reason)] if quality.override_reason else told


def what(operation: pb.Operation) -> str:
    """Return in a few words what an operation was asked to do."""
    match operation.WhichOneof("change"):
        case "deploy_release":
            return _deploy(operation.deploy_release)
        case "rollback_release":
            return f"roll back {operation.rollback_release.surface}"
        case "set_traffic":
            traffic = operation.set_traffic
            return f"{traffic.surface} {traffic.release_version} to {traffic.percent:.4g} %"
        case "set_alias":
            alias = operation.set_alias
            return f"alias {alias.alias} to {alias.target}" if alias.target else f"end alias {alias.alias}"
        case "hold_model":
            return f"hold {_name(operation.hold_model.policy.model)}"
        case "drop_model":
            return f"drop {_name(operation.drop_model.model)}"
        case "freeze_cluster":
            return "freeze" if operation.freeze_cluster.frozen else "end the freeze"
        case _:
            return _on_shards(operation)


def _on_shards(operation: pb.Operation) -> str:
    match operation.WhichOneof("change"):
        case "apply_plan":
            count = len(operation.apply_plan.plan.moves)
            return f"apply {count} move{'s' if count != 1 else ''}"
        case "drain_shard":
            return f"drain {operation.drain_shard.shard_id}"
        case "undrain_shard":
            return f"undrain {operation.undrain_shard.shard_id}"
        case "scale_shards":
            return f"scale to {operation.scale_shards.shards} shards"
        case "restart_shards":
            shard_ids = operation.restart_shards.shard_ids
            few = ", ".join(shard_ids) or "every shard"
            return f"restart {few if len(shard_ids) < 3 else f'{len(shard_ids)} shards'}"
        case _:
            return operation.kind


def _deploy(request: pb.DeployReleaseRequest) -> str:
    release = request.release
    role = _ROLES.get(request.role)
    return f"deploy {release.surface} {release.version}" + (
        f" as {role}, {request.percent:.4g} %" if role else ""
    )


def _name(model: types_pb2.ModelVersion) -> str:
    return f"{model.model}@{model.version}"


def steps(operation: pb.Operation) -> str:
    """Return how far it is, where it counts its steps."""
    return f"{operation.steps_done} of {operation.steps_total}" if operation.steps_total else ""


def took(operation: pb.Operation) -> str:
    """Return how long it took, or has taken until now."""
    end_s = seconds_of(operation.end_time) if operation.HasField("end_time") else time.time()
    return span(max(0.0, end_s - seconds_of(operation.start_time)))


def _state(operation: pb.Operation) -> Text:
    return state_text(pb.OperationState.Name(operation.state), "OPERATION_STATE_")


def _moment(operation: pb.Operation, form: str) -> str:
    return datetime.fromtimestamp(seconds_of(operation.start_time)).astimezone().strftime(form)
