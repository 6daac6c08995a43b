"""The contract: generated code is what the .proto files say, and every service of the design is there."""

import subprocess
from pathlib import Path

import protos
from protos.generate import generate, generated
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

ROOT = Path(protos.__file__).parent

METHODS = {
    search_service_pb2: {"SearchService": ["Search"]},
    retrieval_service_pb2: {"RetrievalService": ["Retrieve"]},
    pre_ranking_service_pb2: {"PreRankingService": ["PreRank"]},
    ranking_service_pb2: {"RankingService": ["Rank", "Explain"]},
    cascade_service_pb2: {"CascadeService": ["Run"]},
    event_service_pb2: {"EventService": ["RecordEvents"]},
    shard_service_pb2: {"ShardService": ["LoadModel", "UnloadModel", "Drain", "GetShard"]},
    cluster_service_pb2: {
        "ClusterService": [
            *("ListShards", "ListModels", "GetPlacement", "WatchPlacement", "PlanRebalance", "ApplyPlan"),
            *("ListOperations", "GetOperation", "CancelOperation", "DrainShard", "UndrainShard"),
            *("RestartShards", "FreezeCluster", "HoldModel", "DropModel", "ScaleShards", "ListReleases"),
            *("DeployRelease", "RollbackRelease", "SetTraffic", "SetAlias", "ReportShadow"),
        ]
    },
}


def test_committed_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    written = generate(tmp_path)
    committed = generated(ROOT)
    assert [p.relative_to(tmp_path) for p in written] == [p.relative_to(ROOT) for p in committed]
    stale = [p.name for p in written if p.read_text() != (ROOT / p.relative_to(tmp_path)).read_text()]
    assert not stale, f"run `make protos`; stale: {stale}"


def test_protos_are_clean() -> None:
    lint = subprocess.run(["buf", "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_services_have_the_methods_of_the_design() -> None:
    for module, services in METHODS.items():
        found = {
            name: [method.name for method in service.methods]
            for name, service in module.DESCRIPTOR.services_by_name.items()
        }
        assert found == services


def test_every_request_and_response_serves_one_method() -> None:
    used: list[str] = []
    for module in METHODS:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert method.input_type.name == f"{method.name}Request"
                assert method.output_type.name == f"{method.name}Response"
                used += [method.input_type.name, method.output_type.name]
    assert len(used) == len(set(used))
