"""Measures the gate of a workspace's release on held-out queries."""

from pathlib import Path

from deploy.folders import cache_dir
from deploy.gate_report import GateReport, measure
from deploy.progress import query_progress
from deploy.release_files import only_surface, read_release
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from shards.gate_model import open_gate
from training.datasets import sources
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import open_cascade


def run_report(
    workspace: Path, *, surface: str, dataset: str, split: str, limit: int, data_dir: Path | None, seed: int
) -> GateReport:
    """Answer the queries of a split with the gate of the release closed and open.

    Raises `InvalidInput` where the release has no model for its gate, `BundleError` for a bad bundle.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    model = release.gate.model
    if model is None:
        raise InvalidInput(FieldViolation("release", f"{release.name} has no model for its gate"))
    data = sources.load(
        dataset or release.surface.replace("-", "_"), cache_dir=cache_dir(), data_dir=data_dir, seed=seed
    )
    gate = open_gate(folders.models_dir / model.model / model.version, model)
    judged = judged_queries(data, split, limit=limit, history_limit=release.history_limit)
    with query_progress("gate closed and open", len(judged)) as on_query:
        outcomes, policies = measure(
            open_cascade(release, folders.models_dir), gate, judged, on_query=on_query
        )
    return GateReport(
        dataset=data.name,
        split=split,
        release=f"{release.surface} {release.version}",
        queries_are_proxies=data.queries_are_proxies,
        outcomes=outcomes,
        policies=policies,
    )
