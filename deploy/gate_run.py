"""Measures the gate of a workspace's release on held-out queries."""

from deploy.gate_report import GateReport, measure
from deploy.held_out import HeldOut
from deploy.progress import query_progress
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from shards.gate_model import open_gate
from training.evaluation.offline import open_cascade


def run_report(folders: Workspace, held_out: HeldOut) -> GateReport:
    """Answer held-out queries with the gate of the release closed and open.

    Raises `InvalidInput` where the release has no model for its gate, `BundleError` for a bad bundle.
    """
    release = held_out.release(folders)
    model = release.gate.model
    if model is None:
        raise InvalidInput(FieldViolation("release", f"{release.name} has no model for its gate"))
    data, judged = held_out.queries(release, folders)
    gate = open_gate(folders.models_dir / model.model / model.version, model)
    with query_progress("gate closed and open", len(judged)) as on_query:
        outcomes, policies = measure(
            open_cascade(release, folders.models_dir), gate, judged, on_query=on_query
        )
    return GateReport(
        dataset=data.name,
        split=held_out.split,
        release=f"{release.surface} {release.version}",
        queries_are_proxies=data.queries_are_proxies,
        outcomes=outcomes,
        policies=policies,
    )
