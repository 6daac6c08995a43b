"""A small cluster that has what the documents talk about: surfaces, models, releases, files by name."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from deploy.release_files import write_release
from services.codec import release_to_proto
from shards.bundle import open_bundle, write_bundle
from shards.manifest import MANIFEST_FILE
from shards.release import ModelVersion, Release, ReleaseScorer
from tests.deploy.running_cluster import PATIENT, RunningCluster, make_workspace, running_cluster

SHARDS = 3
"""As many as it takes to empty one: each bundle answers from two."""

COPIES = (("ranker", "7", "ranker"), ("ranker", "8", "ranker"), ("seldom", "1", "memory"))
"""Bundles by name and version, and those that they are copies of."""

NAMES = {
    "movielens-embedding": "two_tower",
    "movielens-ranker": "ranker",
    "genres": "colour",
    "Comedy": "red",
}
"""What the demo's models and attributes are called here."""


@contextmanager
def followed_cluster(root: Path, folder: Path) -> Iterator[RunningCluster]:
    """Run three shards that serve the surface "shop"; files that commands name lie in the folder."""
    workspace = make_workspace(root)
    models = workspace.models_dir
    for name, version, source in (
        ("ranker", "7", "ranker"),
        ("ranker", "8", "ranker"),
        ("seldom", "1", "memory"),
    ):
        _copy(models, source, name, version)
    damaged = _copy(models, "memory", "broken", "1") / "items.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    live = replace(PATIENT, ranker=_ranker("7"))
    write_release(workspace, live)
    _write(folder / "r2.json", replace(live, version="r2", merged=100))
    _write(folder / "r3.json", replace(live, version="r3", ranker=_ranker("8")))
    (folder / "strict.json").write_text(json.dumps({"tolerated": {"ndcg_10": 0.0}}))
    event = {"event_id": "e1", "user_id": "u7", "item_id": "i42", "action": "click", "timestamp": 1_000}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    # A busy machine starts three shards in more than the minute that they are given.
    patient = folder / "patient.json"
    patient.write_text(json.dumps({"start_after_ms": 300_000}))
    options = ("--shards", str(SHARDS), "--planning", str(patient))
    with running_cluster(workspace, *options, within_s=400.0) as cluster:
        yield cluster


def _ranker(version: str) -> ReleaseScorer:
    assert PATIENT.ranker
    return replace(PATIENT.ranker, model=ModelVersion("ranker", version))


def _copy(models: Path, source: str, name: str, version: str) -> Path:
    bundle = open_bundle(models / source / "1")

    def fill(folder: Path) -> None:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        (folder / MANIFEST_FILE).unlink()

    return write_bundle(models, replace(bundle.manifest, name=name, version=version), fill)


def _write(path: Path, release: Release) -> None:
    path.write_text(MessageToJson(release_to_proto(release)))
