"""The public decoders: bytes in, a value or a documented error out. Anything else is a finding."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from deploy.event_lines import batches
from deploy.outcome_lines import read_lines
from deploy.planning_rules import controller_settings
from deploy.project import read_project
from deploy.quality_gate import quality_rules
from deploy.readout import readout
from deploy.release_files import read_release_file
from deploy.serving_rules import serving_rules
from deploy.settings import ClusterSettings
from deploy.telemetry import telemetry
from deploy.workspace import PROJECT_FILE, Workspace
from protos.headrace.v1 import (
    cascade_service_pb2,
    cluster_service_pb2,
    event_service_pb2,
    pre_ranking_service_pb2,
    ranking_service_pb2,
    retrieval_service_pb2,
    search_service_pb2,
    shard_service_pb2,
)
from services import codec
from services.access import read_rules
from services.codec.changes import change_from_proto
from services.codec.plans import moves_from_proto
from services.codec.shadow import gate_reports_from_proto, shadow_reports_from_proto
from services.placement_json import placement_from_json, placement_to_json
from services.shard_record import read_record
from shards.bundle import open_bundle, write_bundle
from shards.features import FEATURES_FILE
from shards.golden import GOLDEN_FILE, read_golden
from shards.lookup_table import TABLE_FILE
from shards.manifest import MANIFEST_FILE, parse_manifest
from shards.reference import read_reference
from shards.servable import open_servable
from tests.fuzz.target import Target, file_target, message_target
from tests.shards import bundles
from training.datasets.parquet import read_table

_NOW_MS = bundles.NOW_MS


def _setting(field: str, read: Callable[[ClusterSettings], object], seed: bytes) -> Target:
    def decode(path: Path) -> object:
        options: dict[str, Any] = {field: str(path)}
        return read(ClusterSettings(workspace="w", shard_memory_bytes=1 << 30, **options))

    return file_target("settings.json", decode, seed)


@cache
def bundle_folder() -> Path:
    """Return bundles of every engine, made once in a process."""
    root = Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
    words = bundles.seeded_words()
    bundles.write_lexical(root)
    bundles.write_table(root, "memory", {"key": "query"}, bundles.query_table())
    bundles.write_two_tower(root, words, index="IVF16,SQ8")
    bundles.write_three_tower(root, words)
    return root


def _open_altered(name: str, file: str, data: bytes) -> object:
    """Open a bundle with one file in place of its own, and a manifest that says so."""
    source = bundle_folder() / name / bundles.VERSION
    manifest = open_bundle(source).manifest

    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))
        (folder / file).write_bytes(data)

    with tempfile.TemporaryDirectory() as root:
        return open_servable(open_bundle(write_bundle(Path(root), manifest, fill)), "cpu")


def _bundle_file(name: str, file: str, **options: Any) -> Target:
    return Target(
        decode=partial(_open_altered, name, file),
        seeds=lambda: [(bundle_folder() / name / bundles.VERSION / file).read_bytes()],
        **options,
    )


def _whole_bundle(data: bytes) -> object:
    """Open a bundle one of whose files ends in these bytes, as written beside its manifest."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "b"
        shutil.copytree(bundle_folder() / "memory" / bundles.VERSION, path)
        (path / TABLE_FILE).write_bytes(data)
        return open_bundle(path)


def _golden(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / GOLDEN_FILE
        path.write_bytes(data)
        return read_golden(path)


def _manifest_bytes() -> list[bytes]:
    return [path.read_bytes() for path in bundle_folder().glob(f"*/*/{MANIFEST_FILE}")]


def _placement() -> bytes:
    from tests.router.test_releases import two_releases

    return placement_to_json(two_releases())


def _search() -> Message:
    return search_service_pb2.SearchRequest(
        surface="shop", query="red mug", user_id="u1", page_size=10, explain=True, contributions=3
    )


def _retrieval() -> Message:
    model = bundles.RELEASE.channels[0].model
    return codec.retrieve_to_proto(codec.Retrieval(model=model, context=bundles.context(), k=5))


def _scoring() -> codec.Scoring:
    assert bundles.RELEASE.ranker is not None
    return codec.Scoring(
        model=bundles.RELEASE.ranker.model,
        context=bundles.context("mug", "item-001"),
        candidates=bundles.all_items(score=range(200)).first(20),
        keep=5,
    )


def _event() -> Message:
    request = event_service_pb2.RecordEventsRequest()
    event = request.events.add(event_id="e", user_id="u", item_id="i", action="click", search_id="s")
    event.timestamp.FromMilliseconds(_NOW_MS)
    return request


def _deploy() -> Message:
    return cluster_service_pb2.DeployReleaseRequest(
        release=codec.release_to_proto(bundles.RELEASE),
        role=cluster_service_pb2.RELEASE_ROLE_CANARY,
        percent=5.0,
    )


def _changes() -> Mapping[str, Target]:
    kinds = [
        *("RollbackRelease", "SetTraffic", "SetAlias", "ApplyPlan", "DrainShard", "UndrainShard"),
        *("ScaleShards", "RestartShards", "FreezeCluster", "HoldModel", "DropModel"),
    ]
    found = {kind: getattr(cluster_service_pb2, f"{kind}Request") for kind in kinds}
    return {
        f"request/{kind}": message_target(message, change_from_proto) for kind, message in found.items()
    } | {
        "request/DeployRelease": message_target(
            cluster_service_pb2.DeployReleaseRequest, change_from_proto, _deploy()
        )
    }


def _lines(data: bytes) -> object:
    return list(batches(data.decode(errors="replace").splitlines(), 10))


def _outcomes(path: Path) -> object:
    return readout(partial(read_lines, path.parent), "s", ("click",), window_ms=9)


_OUTCOMES = (
    b'{"kind":"search","at_ms":1,"id":"a","user":"u","surface":"s","release":"1","pinned":false,"items":["i"]}\n'
    b'{"kind":"event","at_ms":2,"id":"b","user":"u","item":"i","action":"click","search":""}\n'
)


TARGETS: Mapping[str, Target] = {
    "request/Search": message_target(search_service_pb2.SearchRequest, codec.search_from_proto, _search()),
    "request/RecordEvents": message_target(
        event_service_pb2.RecordEventsRequest, lambda m: codec.events_from_proto(m, _NOW_MS), _event()
    ),
    "request/Retrieve": message_target(
        retrieval_service_pb2.RetrieveRequest, codec.retrieve_from_proto, _retrieval()
    ),
    "request/PreRank": message_target(
        pre_ranking_service_pb2.PreRankRequest, codec.pre_rank_from_proto, codec.pre_rank_to_proto(_scoring())
    ),
    "request/Rank": message_target(
        ranking_service_pb2.RankRequest, codec.rank_from_proto, codec.rank_to_proto(_scoring())
    ),
    "request/Explain": message_target(ranking_service_pb2.ExplainRequest, codec.explain_from_proto),
    "request/Run": message_target(cascade_service_pb2.RunRequest, codec.cascade_from_proto),
    "answer/Retrieve": message_target(retrieval_service_pb2.RetrieveResponse, codec.answer_from_proto),
    "answer/Replica": message_target(shard_service_pb2.Replica, codec.replica_from_proto),
    "request/PlanRebalance": message_target(
        cluster_service_pb2.PlanRebalanceRequest, lambda m: moves_from_proto(m.moves)
    ),
    "request/ReportShadow": message_target(
        cluster_service_pb2.ReportShadowRequest,
        lambda m: (shadow_reports_from_proto(m), gate_reports_from_proto(m)),
    ),
    **_changes(),
    "placement snapshot": Target(
        decode=lambda data: placement_from_json(data, store="snapshot", key="k"),
        seeds=lambda: [_placement()],
    ),
    "shard record": file_target(
        "s.json",
        read_record,
        b'{"port": 1, "models": [{"model": "m", "version": "1", "stage": "ranking", "path": "/"}]}',
    ),
    "bundle manifest": Target(decode=parse_manifest, seeds=_manifest_bytes, allowed=(ValueError,)),
    "bundle with an altered file": Target(
        decode=_whole_bundle,
        seeds=lambda: [(bundle_folder() / "memory" / "1" / TABLE_FILE).read_bytes()],
    ),
    "bundle goldens": Target(
        decode=_golden, seeds=lambda: [(bundle_folder() / "memory" / "1" / GOLDEN_FILE).read_bytes()]
    ),
    "bundle reference": file_target(
        "reference.json",
        read_reference,
        b'{"searches": 10, "columns": {"score": {"ends": [0.0, 1.0], "shares": [0.25, 0.5, 0.25]}}}',
    ),
    "bundle features": _bundle_file("pre_ranker", FEATURES_FILE),
    "bundle vectors": _bundle_file("pre_ranker", "item_vectors.npy"),
    "bundle items": _bundle_file("lexical", "items.parquet", native=True),
    "bundle table": _bundle_file("memory", TABLE_FILE, native=True),
    "bundle index": _bundle_file("two_tower", "index.faiss", native=True),
    "table": replace(
        file_target("items.parquet", partial(read_table, "items"), native=True),
        seeds=lambda: [(bundle_folder() / "lexical" / "1" / "items.parquet").read_bytes()],
    ),
    "settings serving": _setting(
        "serving_path", serving_rules, b'{"shard": {"workers": 2, "quality": {"share": 0.5}}}'
    ),
    "settings planning": _setting(
        "planning_path", controller_settings, b'{"lost_after_ms": 5, "limits": {"min_replicas": 2}}'
    ),
    "settings telemetry": _setting("telemetry_path", telemetry, b'{"logs": {"as_json": true}}'),
    "settings quality": file_target(
        "quality.json", lambda path: quality_rules(path, Workspace(path.parent)), b'{"queries": 5}'
    ),
    "access": file_target("access.json", read_rules, b'{"callers": []}'),
    "release file": file_target(
        "release.json", read_release_file, b'{"surface": "a", "version": "1", "channels": []}'
    ),
    "project": file_target(
        PROJECT_FILE, lambda path: read_project(path.parent), b'surface = "shop"\n[cluster]\nshards = 2\n'
    ),
    "event lines": Target(
        decode=_lines,
        seeds=lambda: [
            b'{"event_id": "e", "user_id": "u", "item_id": "i", "action": "click", "timestamp": 5}\n'
        ],
    ),
    "outcome lines": file_target("router-0-1.jsonl", _outcomes, _OUTCOMES),
}
