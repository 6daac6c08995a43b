"""The audit log: on a real controller with rules, and its file by itself."""

import asyncio
from pathlib import Path

import grpc
import pytest

from protos.headrace.v1 import cluster_service_pb2 as pb
from services import audit_log
from services.audit_interceptor import AUDITED
from services.audit_log import AuditEntry, AuditLog, read_audit
from tests.services.callers import access, showing
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller


def entry(detail: str) -> AuditEntry:
    return AuditEntry(at="2026-01-01", caller="me", peer="p", method="M", result="accepted", detail=detail)


def test_who_did_what_and_what_came_of_it_is_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "state" / "audit.jsonl"

    async def main() -> None:
        async with (
            in_process_shards(tmp_path / "state") as shards,
            running_controller(tmp_path, shards, access=access, audit=AuditLog(path)) as controller,
        ):
            stub = controller.stub

            async def code(call: object) -> grpc.StatusCode | None:
                try:
                    await call  # type: ignore[misc]
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return None

            freeze, operator = pb.FreezeClusterRequest(frozen=True), showing("operator-token")
            drain = pb.DrainShardRequest(shard_id="shard-9")
            listed = stub.ListShards(pb.ListShardsRequest(), timeout=10, metadata=operator)
            assert await code(listed) is None
            assert await code(stub.FreezeCluster(freeze, timeout=10, metadata=operator)) is None
            assert await code(stub.DrainShard(drain, timeout=10, metadata=operator)) is not None
            denied = stub.DrainShard(drain, timeout=10, metadata=showing("search-token"))
            assert await code(denied) is grpc.StatusCode.PERMISSION_DENIED
            unknown = stub.DrainShard(drain, timeout=10, metadata=showing("guess-token"))
            assert await code(unknown) is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(main())
    assert path.stat().st_mode & 0o777 == 0o600
    frozen, drained, denied, unknown = read_audit(path)
    assert (frozen.caller, frozen.method, frozen.result) == ("operator", "FreezeCluster", "accepted")
    assert frozen.request == {"frozen": True}
    assert frozen.detail, "the operation's id"
    assert frozen.peer.startswith("ipv4:127.0.0.1:")
    assert (drained.caller, drained.request) == ("operator", {"shard_id": "shard-9"})
    assert drained.result == "Refused", "the cluster is frozen"
    assert (denied.result, denied.caller, denied.request) == ("PermissionDenied", "", {})
    assert "caller 'search' lacks the role" in denied.detail
    assert unknown.result == "Unauthenticated"
    assert b"-token" not in path.read_bytes()


def test_every_method_that_changes_something_is_audited() -> None:
    methods = {name.rpartition("/")[2] for name in AUDITED}
    assert {"ApplyPlan", "DeployRelease", "SetTraffic", "CancelOperation", "ScaleShards"} <= methods
    assert not [name for name in methods if name.startswith(("List", "Get", "Watch"))]


def test_a_full_file_makes_room_and_the_oldest_go(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", max_bytes=300, kept_files=2)
    for number in range(20):
        log.append(entry(f"{number}"))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 300 for path in tmp_path.iterdir())
    kept = [int(found.detail) for found in read_audit(log.path)]
    assert kept == list(range(kept[0], 20))
    assert len(kept) >= 4


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(entry("whole"))
    with log.path.open("a") as file:
        file.write('{"at": "2026')
    assert [found.detail for found in read_audit(log.path)] == ["whole"]
    log.append(entry("next"))
    assert [found.detail for found in read_audit(log.path)] == ["whole", "next"]
    assert list(read_audit(tmp_path / "nothing")) == []


def test_a_log_that_cannot_be_written_is_loud_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("in the way")
    AuditLog(tmp_path / "state" / "audit.jsonl").append(entry("lost"))
    assert "not in the audit log: M, by 'me'" in caplog.text
    assert audit_log.KEPT_FILES > 1
