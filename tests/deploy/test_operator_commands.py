"""Every command that operators change a cluster with, over a real port whose answers are scripted."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson, Parse

from deploy.settings import PROJECT_ROOT
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2
from services.codec import release_to_proto
from shards.errors import Conflict, FieldViolation, InvalidInput, NotFound, Refused
from tests.deploy import running_cluster
from tests.deploy.commands import Ran, headrace
from tests.deploy.scripted_cluster import ScriptedCluster, scripted_cluster
from tests.shards.bundles import RELEASE, SURFACE

RANKER = types_pb2.ModelVersion(model="ranker", version="7")
MOVE = pb.Move(
    model=RANKER,
    from_shard_id="shard-0",
    to_shard_id="shard-1",
    memory_bytes=3 << 20,
    reason="is full",
)
PLAN = pb.Plan(
    plan_id="p",
    generation=12,
    moves=[MOVE],
    unplaced=["huge@1: no shard has room"],
    deferred=4,
    shards=[
        pb.ShardForecast(
            shard_id=f"shard-{n}",
            capacity_bytes=100 << 20,
            before_bytes=(90 - 80 * n) << 20,
            after_bytes=(87 - 74 * n) << 20,
        )
        for n in range(2)
    ],
)
PLAN.expected_duration.FromMilliseconds(2_500)
DRAIN = pb.Operation(
    operation_id="abc123",
    kind="drain-shard",
    state=pb.OPERATION_STATE_RUNNING,
    steps_total=2,
    drain_shard=pb.DrainShardRequest(shard_id="shard-1"),
)


def state_of(
    operation: pb.Operation, state: pb.OperationState.ValueType, detail: str, done: int
) -> pb.Operation:
    """Return the operation some time later."""
    later = pb.Operation()
    later.CopyFrom(operation)
    later.state, later.detail, later.steps_done = state, detail, done
    later.start_time.FromSeconds(1_700_000_000)
    if state != pb.OPERATION_STATE_RUNNING:
        later.end_time.FromSeconds(1_700_000_003)
    return later


RUNNING = state_of(DRAIN, pb.OPERATION_STATE_RUNNING, "loading ranker@7 on shard-0", 1)
DONE = state_of(DRAIN, pb.OPERATION_STATE_SUCCEEDED, "empty since generation 5", 2)
FAILED = state_of(DRAIN, pb.OPERATION_STATE_FAILED, "no room for ranker@7", 1)


@pytest.fixture
def cluster() -> Iterator[ScriptedCluster]:
    with scripted_cluster() as scripted:
        scripted.states = [RUNNING, RUNNING, DONE]
        yield scripted


def run(cluster: ScriptedCluster, *arguments: str) -> Ran:
    return headrace(*arguments, "--controller", cluster.address)


@pytest.mark.parametrize(
    ("arguments", "request_sent"),
    [
        ("shards drain shard-1", pb.DrainShardRequest(shard_id="shard-1")),
        ("shards undrain shard-1", pb.UndrainShardRequest(shard_id="shard-1")),
        ("shards restart", pb.RestartShardsRequest()),
        ("shards restart shard-1 shard-0", pb.RestartShardsRequest(shard_ids=["shard-1", "shard-0"])),
        ("shards freeze", pb.FreezeClusterRequest(frozen=True)),
        ("shards freeze --off", pb.FreezeClusterRequest(frozen=False)),
        ("scale --shards 4", pb.ScaleShardsRequest(shards=4)),
        ("scale --shards 4 --gpu-fraction 0.25", pb.ScaleShardsRequest(shards=4, gpu_fraction=0.25)),
        (
            "models load ranker@7 --min-replicas 2 --max-replicas 3",
            pb.HoldModelRequest(
                policy=pb.ModelPolicy(model=RANKER, min_replicas=2, max_replicas=3, standalone=True)
            ),
        ),
        (
            "models load ranker@7 --on-demand",
            pb.HoldModelRequest(policy=pb.ModelPolicy(model=RANKER, on_demand=True, standalone=True)),
        ),
        (
            "models pin ranker@7",
            pb.HoldModelRequest(policy=pb.ModelPolicy(model=RANKER, pinned=True, standalone=True)),
        ),
        ("models unload ranker@7", pb.DropModelRequest(model=RANKER)),
        ("release rollback shop", pb.RollbackReleaseRequest(surface="shop")),
        (
            "release canary shop r2 --percent 5",
            pb.SetTrafficRequest(surface="shop", release_version="r2", percent=5),
        ),
        (
            "release shadow shop r2 --percent 0",
            pb.SetTrafficRequest(surface="shop", release_version="r2", percent=0),
        ),
        ("release alias gifts shop@canary", pb.SetAliasRequest(alias="gifts", target="shop@canary")),
        ("release alias gifts --remove", pb.SetAliasRequest(alias="gifts")),
    ],
)
def test_a_change_is_asked_for_followed_and_told(
    cluster: ScriptedCluster, arguments: str, request_sent: pb.DrainShardRequest
) -> None:
    done = run(cluster, *arguments.split())
    assert (done.code, done.error) == (0, None)
    assert request_sent in cluster.asked
    assert "  loading ranker@7 on shard-0 (1 of 2)\n" in done.err
    assert done.out == "drain shard-1: empty since generation 5, after 3.0 s\n"


@pytest.mark.parametrize(
    ("arguments", "role", "percent"),
    [
        (["deploy"], pb.RELEASE_ROLE_LIVE, 100),
        (["canary", "--percent", "5"], pb.RELEASE_ROLE_CANARY, 5),
        (["shadow", "--percent", "100"], pb.RELEASE_ROLE_SHADOW, 100),
    ],
)
def test_a_release_file_is_deployed_in_its_role(
    cluster: ScriptedCluster,
    tmp_path: Path,
    arguments: list[str],
    role: pb.ReleaseRole.ValueType,
    percent: float,
) -> None:
    file = tmp_path / "r.json"
    file.write_text(MessageToJson(release_to_proto(RELEASE)))
    assert run(cluster, "release", arguments[0], str(file), *arguments[1:]).code == 0
    wanted = pb.DeployReleaseRequest(release=release_to_proto(RELEASE), role=role, percent=percent)
    assert cluster.named("DeployRelease") == [wanted]


def test_promote_gives_the_canary_everything(cluster: ScriptedCluster) -> None:
    canary = pb.Traffic(surface=SURFACE, canary=release_to_proto(RELEASE), canary_percent=5)
    cluster.answers["ListReleases"] = pb.ListReleasesResponse(
        surfaces=[
            pb.SurfaceReleases(surface=SURFACE, traffic=canary),
            pb.SurfaceReleases(surface="bare", live=release_to_proto(RELEASE)),
        ]
    )
    assert run(cluster, "release", "promote", SURFACE).code == 0
    wanted = pb.SetTrafficRequest(surface=SURFACE, release_version=RELEASE.version, percent=100)
    assert cluster.named("SetTraffic") == [wanted]
    for surface, problem in (("bare", "canary 'bare'"), ("none", "surface 'none'")):
        refused = run(cluster, "release", "promote", surface)
        assert (refused.code, str(refused.error)) == (1, f"{problem} does not exist")


def test_no_wait_prints_the_id_at_once(cluster: ScriptedCluster) -> None:
    done = run(cluster, "shards", "drain", "shard-1", "--no-wait")
    assert (done.code, done.out, done.err) == (0, "abc123\n", "")
    assert cluster.named("GetOperation") == []


def test_json_is_the_operation_and_progress_stays_out_of_it(cluster: ScriptedCluster) -> None:
    done = run(cluster, "shards", "drain", "shard-1", "--json")
    assert Parse(done.out, pb.Operation()) == DONE
    assert "loading" in done.err
    cluster.states = [RUNNING]
    unwaited = run(cluster, "shards", "drain", "shard-1", "--json", "--no-wait")
    assert json.loads(unwaited.out)["operationId"] == "abc123"


def test_a_failure_is_an_error_with_its_reason(cluster: ScriptedCluster) -> None:
    cluster.states = [RUNNING, FAILED]
    for options in ([], ["--json"]):
        failed = run(cluster, "shards", "drain", "shard-1", *options)
        assert failed.code == 1
        assert isinstance(failed.error, Refused)
        assert str(failed.error) == "no room for ranker@7"
        assert bool(failed.out) == bool(options)


@pytest.mark.parametrize(
    "refusal",
    [
        NotFound("shard", "shard-9"),
        Conflict("the plan is of generation 3, and this is 4"),
        Refused("the cluster is frozen", reason="CLUSTER_FROZEN"),
        InvalidInput(FieldViolation("percent", "must be a finite number, not nan")),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_a_refusal_ends_in_one_line(cluster: ScriptedCluster, refusal: Exception) -> None:
    cluster.answers["DrainShard"] = refusal
    refused = run(cluster, "shards", "drain", "shard-9")
    assert (refused.code, refused.out, str(refused.error)) == (1, "", str(refusal))
    assert type(refused.error) is type(refusal)


def test_ctrl_c_leaves_the_operation_running(cluster: ScriptedCluster) -> None:
    cluster.states = [RUNNING]
    command = running_cluster.headrace("shards", "drain", "shard-1", "--controller", cluster.address)
    process = subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        running_cluster.wait_until(lambda: bool(cluster.named("GetOperation")))
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == (
        "The operation goes on. `headrace ops wait abc123` waits for it again, "
        "`headrace ops cancel abc123` takes it back."
    )
    assert cluster.named("CancelOperation") == []


def test_a_plan_is_shown_kept_and_applied(cluster: ScriptedCluster, tmp_path: Path) -> None:
    cluster.answers["PlanRebalance"] = pb.PlanRebalanceResponse(plan=PLAN)
    file = tmp_path / "plan.json"
    shown = run(cluster, "shards", "plan", "--out", str(file))
    assert shown.code == 0
    for told in (
        "ranker@7",
        "is full",
        "87.0 MB",
        "1 move, 3.0 MB to load, about 2.5 s, on generation 12. 4 more wait",
        "Cannot be placed: huge@1: no shard has room",
    ):
        assert told in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert Parse(file.read_text(), pb.Plan()) == PLAN
    assert Parse(run(cluster, "shards", "plan", "--json").out, pb.Plan()) == PLAN

    assert run(cluster, "shards", "apply", str(file)).code == 0
    assert cluster.named("ApplyPlan") == [pb.ApplyPlanRequest(plan=PLAN)]
    cluster.answers["ApplyPlan"] = Conflict("the plan is of generation 12, and this is 13")
    late = run(cluster, "shards", "apply", str(file))
    assert (late.code, str(late.error)) == (1, "the plan is of generation 12, and this is 13")


def test_moves_and_rebalances_are_planned_and_applied_in_one_go(cluster: ScriptedCluster) -> None:
    cluster.answers["PlanRebalance"] = pb.PlanRebalanceResponse(plan=PLAN)
    move = ["shards", "move", "ranker@7", "shard-0", "shard-1"]
    assert "is full" in run(cluster, *move, "--dry-run").out
    assert cluster.named("ApplyPlan") == []
    assert run(cluster, *move).code == 0
    wanted = pb.Move(model=RANKER, from_shard_id="shard-0", to_shard_id="shard-1")
    assert cluster.named("PlanRebalance") == [pb.PlanRebalanceRequest(moves=[wanted])] * 2
    assert run(cluster, "shards", "apply").code == 0
    assert cluster.named("ApplyPlan") == [pb.ApplyPlanRequest(plan=PLAN)] * 2


def test_a_plan_without_moves_is_not_applied(cluster: ScriptedCluster, tmp_path: Path) -> None:
    cluster.answers["PlanRebalance"] = pb.PlanRebalanceResponse(plan=pb.Plan(generation=3))
    file = tmp_path / "plan.json"
    for command in (["plan", "--out", str(file)], ["apply"], ["apply", str(file)]):
        done = run(cluster, "shards", *command)
        assert (done.code, done.out) == (0, "Nothing to move at generation 3.\n")
    assert cluster.named("ApplyPlan") == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("shards apply no-such.json", "no-such.json: cannot be read: No such file or directory"),
        ("shards apply pyproject.toml", "pyproject.toml: is not a plan: "),
        ("shards move ranker shard-0 shard-1", "model: must be MODEL@VERSION, not 'ranker'"),
        ("models load @7", "model: must be MODEL@VERSION, not '@7'"),
        ("release canary no-such.json --percent 5", "no-such.json: cannot be read"),
        ("shards show shard-9", "shard 'shard-9' does not exist"),
        ("models show ranker@8", "model 'ranker@8' does not exist"),
        ("ops show abc", "operation 'abc' does not exist"),
        ("ops cancel abc", "operation 'abc' does not exist"),
    ],
)
def test_mistakes_are_named_and_nothing_is_asked(
    cluster: ScriptedCluster, arguments: str, problem: str
) -> None:
    done = run(cluster, *arguments.split())
    assert (done.code, done.out) == (1, "")
    assert str(done.error).startswith(problem)
    assert not any(type(request).__name__.startswith(("Apply", "Cancel")) for request in cluster.asked)


def test_an_alias_needs_a_target_or_its_end(cluster: ScriptedCluster) -> None:
    for arguments in (["gifts"], ["gifts", "shop", "--remove"]):
        assert run(cluster, "release", "alias", *arguments).code == 2
    assert cluster.asked == []


def test_operations_are_listed_shown_awaited_and_cancelled(cluster: ScriptedCluster) -> None:
    applied = pb.Operation(operation_id="abd456", apply_plan=pb.ApplyPlanRequest(plan=PLAN))
    other = state_of(applied, pb.OPERATION_STATE_FAILED, "shard-1 is lost", 0)
    cluster.answers["ListOperations"] = pb.ListOperationsResponse(operations=[other, RUNNING])
    listed = run(cluster, "ops", "list").out
    assert "apply 1 move" in listed
    assert "drain shard-1" in listed
    assert max(map(len, listed.splitlines())) <= 80
    assert "abd456" not in run(cluster, "ops", "list", "--running").out
    parsed = Parse(run(cluster, "ops", "list", "--json").out, pb.ListOperationsResponse())
    assert list(parsed.operations) == [other, RUNNING]
    assert "is full" in run(cluster, "ops", "show", "abd").out
    assert "begins the ids of several: abd456, abc123" in str(run(cluster, "ops", "show", "ab").error)
    assert run(cluster, "ops", "wait", "abc").code == 0
    assert str(run(cluster, "ops", "wait", "abd").error) == "shard-1 is lost"
    cancelled = state_of(DRAIN, pb.OPERATION_STATE_CANCELLED, "", 1)
    cluster.answers["CancelOperation"] = pb.CancelOperationResponse(operation=cancelled)
    assert run(cluster, "ops", "cancel", "abc").out == "drain shard-1 is cancelled\n"
    assert cluster.named("CancelOperation") == [pb.CancelOperationRequest(operation_id="abc123")]


def replica(error: str = "") -> shard_service_pb2.Replica:
    """Return the ranker as a shard holds it."""
    failed, ready = shard_service_pb2.REPLICA_STATE_FAILED, shard_service_pb2.REPLICA_STATE_READY
    state = failed if error else ready
    held = shard_service_pb2.Replica(model=RANKER, state=state, error=error, memory_bytes=5 << 20, requests=9)
    held.load_time.FromMilliseconds(420)
    return held


def test_shards_and_models_are_shown(cluster: ScriptedCluster) -> None:
    refused = replica("golden.npz: differs by 0.2")
    shards = pb.ListShardsResponse(
        generation=7,
        shards=[
            pb.Shard(
                shard_id="shard-0",
                address="127.0.0.1:1",
                state=pb.SHARD_STATE_DRAINING,
                capacity_bytes=9 << 20,
                replicas=[replica()],
                load=12.5,
            ),
            pb.Shard(
                shard_id="shard-1", state=pb.SHARD_STATE_DOWN, recycle_reason="it leaks", replicas=[refused]
            ),
        ],
    )
    cluster.answers["ListShards"] = shards
    listed = run(cluster, "shards", "list")
    assert "draining" in listed.out
    assert "placement generation 7" in listed.out
    assert max(map(len, listed.out.splitlines())) <= 80
    assert Parse(run(cluster, "shards", "list", "--json").out, pb.ListShardsResponse()) == shards
    one = run(cluster, "shards", "show", "shard-1").out
    assert "it leaks" in one
    assert "differs by 0.2" in one

    policy = pb.ModelPolicy(model=RANKER, pinned=True, min_replicas=2)
    replicas = [
        pb.ShardReplica(shard_id="shard-0", replica=replica()),
        pb.ShardReplica(shard_id="shard-1", replica=refused),
    ]
    ranker = pb.Model(
        model=RANKER, shard_ids=["shard-0", "shard-1"], surfaces=[SURFACE], policy=policy, replicas=replicas
    )
    cluster.answers["ListModels"] = pb.ListModelsResponse(models=[ranker])
    models = run(cluster, "models", "list").out
    assert "1 of 2" in models
    assert max(map(len, models.splitlines())) <= 80
    shown = run(cluster, "models", "show", "ranker@7").out
    assert "pinned, 2 to … replicas" in " ".join(shown.split())
    assert "differs by 0.2" in " ".join(shown.split())
    assert Parse(run(cluster, "models", "show", "ranker@7", "--json").out, pb.Model()) == ranker

    run(cluster, "models", "pin", "ranker@7", "--off")
    kept = pb.ModelPolicy(model=RANKER, min_replicas=2)
    assert cluster.named("HoldModel") == [pb.HoldModelRequest(policy=kept)]


def test_releases_are_listed_with_shares_shadows_and_aliases(cluster: ScriptedCluster) -> None:
    live = release_to_proto(RELEASE)
    report = pb.ShadowReport(
        surface=SURFACE,
        release_version="r3",
        searches=4,
        failures=1,
        overlap_sum=3.2,
        common_items=30,
        score_difference_sum=0.6,
        rank_difference_sum=15,
        extra_seconds_sum=0.008,
    )
    traffic = pb.Traffic(
        surface=SURFACE,
        canary=pb.Release(surface=SURFACE, version="r2"),
        canary_percent=5,
        shadow=pb.Release(surface=SURFACE, version="r3"),
        shadow_percent=50,
        previous=pb.Release(surface=SURFACE, version="r0"),
    )
    surface = pb.SurfaceReleases(surface=SURFACE, live=live, traffic=traffic, shadow_report=report)
    releases = pb.ListReleasesResponse(surfaces=[surface], aliases={"gifts": f"{SURFACE}@canary"})
    cluster.answers["ListReleases"] = releases
    lines = run(cluster, "release", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(" ".join(lines).split())
    shares = ("live 95 %", "canary 5 %", "shadow 50 %", "previous", "- ranker@1")
    for told in (*shares, "80.0 %", "+2.0 ms", "gifts"):
        assert told in shown
    assert Parse(run(cluster, "release", "list", "--json").out, pb.ListReleasesResponse()) == releases
