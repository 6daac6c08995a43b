"""What operators do to a real controller with real shards, command by command."""

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson, Parse

from deploy.readiness import deploy_releases
from deploy.release_files import read_release, read_release_file, write_release
from deploy.workspace import Running, Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from router.credentials import NOTHING
from services.codec import release_to_proto
from services.controller_driver import ControllerDriver
from shards.errors import Conflict, InvalidInput, NotFound, Refused
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.deploy.background import in_background
from tests.deploy.commands import Ran, headrace
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.shards.bundles import SURFACE, build_models

SHARDS = ("shard-0", "shard-1", "shard-2")
LEXICAL = ModelVersion("lexical", "1")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    build_models(root)
    return root


@dataclass(frozen=True)
class Operated:
    """A cluster, the folder of its workspace, and commands that reach it."""

    root: Path
    address: str
    driver: ControllerDriver

    def run(self, *arguments: str) -> Ran:
        return headrace(*arguments, "--controller", self.address)

    def done(self, *arguments: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        ran = self.run(*arguments)
        assert ran.code == 0, f"{arguments}: {ran}"
        if arguments[1] in {"list", "show"} and "--json" not in arguments:
            assert max(map(len, ran.out.splitlines())) <= 80, ran.out
        return ran.out

    def refused(self, kind: type[Exception], *arguments: str) -> str:
        """Run a command that must be refused; returns the reason."""
        ran = self.run(*arguments)
        assert (ran.code, ran.out) == (1, ""), f"{arguments}: {ran}"
        assert type(ran.error) is kind, f"{arguments}: {ran}"
        return str(ran.error)

    def release(self, version: str, **changes: object) -> str:
        """Return the file of a release with one lexical channel."""
        small = Release(
            surface=SURFACE, version=version, channels=(ReleaseChannel(name="lexical", model=LEXICAL),)
        )
        path = self.root / f"{version}.json"
        path.write_text(MessageToJson(release_to_proto(replace(small, **changes))))  # type: ignore[arg-type]
        return str(path)

    def holders(self, model: str = "lexical") -> set[str]:
        """Return the shards that routers are told to ask."""
        models = Parse(self.done("models", "list", "--json"), pb.ListModelsResponse()).models
        return {s for m in models if m.model.model == model for s in m.shard_ids}

    def roles(self) -> dict[str, str]:
        """Return role to version of what is loaded for the surface."""
        found = Parse(self.done("release", "list", "--json"), pb.ListReleasesResponse()).surfaces[0]
        beside = {role: getattr(found.traffic, role).version for role in ("canary", "shadow", "previous")}
        return {role: version for role, version in ({"live": found.live.version} | beside).items() if version}


@asynccontextmanager
async def operating(root: Path) -> AsyncIterator[Operated]:
    async with (
        in_process_shards(root / "state") as shards,
        running_controller(root, shards, SHARDS) as controller,
    ):
        yield Operated(root, controller.address, controller.driver)


@pytest.fixture
def cluster(tmp_path: Path, bundles: Path) -> Iterator[Operated]:
    shutil.copytree(bundles, tmp_path / "models")
    with in_background(operating(tmp_path)) as operated:
        operated.done("release", "deploy", operated.release("r1"))
        yield operated


def test_releases_are_tried_promoted_and_rolled_back(cluster: Operated) -> None:
    assert cluster.roles() == {"live": "r1"}
    cluster.done("release", "canary", cluster.release("r2", merged=100), "--percent", "5")
    assert cluster.roles() == {"live": "r1", "canary": "r2"}
    cluster.done("release", "canary", SURFACE, "r2", "--percent", "20")
    assert "20 %" in cluster.done("release", "list")
    cluster.done("release", "shadow", cluster.release("r3", merged=50), "--percent", "100")
    assert cluster.roles()["shadow"] == "r3"
    cluster.done("release", "promote", SURFACE)
    assert cluster.roles() == {"live": "r2", "previous": "r1", "shadow": "r3"}
    cluster.done("release", "shadow", SURFACE, "r3", "--percent", "0")
    cluster.done("release", "rollback", SURFACE)
    assert cluster.roles() == {"live": "r1", "previous": "r2"}
    cluster.done("release", "alias", "gifts", SURFACE)
    assert "gifts" in cluster.done("release", "list")
    cluster.done("release", "alias", "gifts", "--remove")
    assert "gifts" not in cluster.done("release", "list")
    listed = cluster.done("ops", "list")
    for told in ("as canary, 5 %", "r2 to 20 %", f"roll back {SURFACE}", "end alias gifts"):
        assert told in " ".join(listed.split())


def test_what_cannot_be_released_is_refused_by_name(cluster: Operated) -> None:
    r2 = cluster.release("r2")
    for percent in ("nan", "inf", "-1", "0", "100", "250"):
        assert "percent: must be" in cluster.refused(
            InvalidInput, "release", "canary", r2, "--percent", percent
        )
    assert "percent: must be" in cluster.refused(
        InvalidInput, "release", "canary", SURFACE, "r1", "--percent", str(math.nan)
    )
    cluster.refused(NotFound, "release", "canary", SURFACE, "r9", "--percent", "5")
    assert "canary" in cluster.refused(NotFound, "release", "promote", SURFACE)
    assert "surface 'none'" in cluster.refused(NotFound, "release", "rollback", "none")
    cluster.run("release", "rollback", SURFACE)
    assert cluster.roles() == {"live": "r1"}
    missing = (ReleaseChannel(name="lexical", model=ModelVersion("lexical", "9")),)
    gone = cluster.release("r3", channels=missing)
    assert "lexical@9" in cluster.refused(NotFound, "release", "deploy", gone)
    broken = cluster.root / "models" / "lexical" / "2"
    shutil.copytree(cluster.root / "models" / "lexical" / "1", broken)
    wrong = (ReleaseChannel(name="lexical", model=ModelVersion("lexical", "2")),)
    failed = cluster.run("release", "deploy", cluster.release("r4", channels=wrong))
    assert failed.code == 1
    assert "cannot serve lexical@2" in str(failed.error)
    assert cluster.roles() == {"live": "r1"}
    operations = Parse(cluster.done("ops", "list", "--json"), pb.ListOperationsResponse()).operations
    assert operations[-1].state == pb.OPERATION_STATE_FAILED
    assert "cannot serve lexical@2" in " ".join(
        cluster.done("ops", "show", operations[-1].operation_id).split()
    )


def test_shards_are_drained_restarted_and_scaled(cluster: Operated) -> None:
    drained = sorted(cluster.holders())[0]
    assert f"drain {drained}: " in cluster.done("shards", "drain", drained)
    assert drained not in cluster.holders()
    assert "drained" in cluster.done("shards", "list")
    assert "drained" in cluster.done("shards", "show", drained)
    cluster.done("shards", "undrain", drained)
    before = {s.shard_id: s.incarnation for s in shards(cluster)}
    cluster.done("shards", "restart")
    assert all(s.incarnation != before[s.shard_id] for s in shards(cluster))
    cluster.done("scale", "--shards", "4")
    assert [s.shard_id for s in shards(cluster)] == [*SHARDS, "shard-3"]
    cluster.done("scale", "--shards", "2")
    assert [s.shard_id for s in shards(cluster)] == ["shard-0", "shard-1"]
    assert "shard-9" in cluster.refused(NotFound, "shards", "drain", "shard-9")
    assert "shards: must be" in cluster.refused(InvalidInput, "scale", "--shards", "0")
    assert "gpu_fraction" in cluster.refused(InvalidInput, "scale", "--shards", "2", "--gpu-fraction", "nan")


def shards(cluster: Operated) -> list[pb.Shard]:
    return list(Parse(cluster.done("shards", "list", "--json"), pb.ListShardsResponse()).shards)


def test_a_plan_is_applied_once_and_only_on_its_generation(cluster: Operated) -> None:
    source = sorted(cluster.holders())[0]
    target = next(s for s in SHARDS if s not in cluster.holders())
    move = ("shards", "move", "lexical@1", source, target)
    shown = cluster.done(*move, "--dry-run")
    assert "1 move, " in shown
    assert source in cluster.holders()
    plan = cluster.root / "plan.json"
    document = json.loads(cluster.done(*move, "--dry-run", "--json"))
    plan.write_text(json.dumps(document))
    assert len(document["shards"]) == len(SHARDS)
    assert cluster.done("shards", "apply", str(plan)).startswith("apply 1 move: ")
    assert target in cluster.holders()
    assert source not in cluster.holders()
    late = cluster.refused(Conflict, "shards", "apply", str(plan))
    assert f"generation {document['generation']}" in late
    assert "apply 1 move" in cluster.done("ops", "list")
    cluster.refused(InvalidInput, *move)
    cluster.refused(InvalidInput, "shards", "move", "ranker@9", source, target)
    assert "Nothing to move" in cluster.done("shards", "apply")


def test_a_frozen_cluster_refuses_changes_but_flips(cluster: Operated) -> None:
    cluster.done("release", "deploy", cluster.release("r2", merged=100))
    cluster.done("shards", "freeze")
    frozen = cluster.refused(Refused, "shards", "drain", "shard-0")
    assert "frozen" in frozen
    cluster.refused(Refused, "scale", "--shards", "4")
    cluster.done("release", "rollback", SURFACE)
    assert cluster.roles() == {"live": "r1", "previous": "r2"}
    cluster.done("shards", "freeze", "--off")
    cluster.done("shards", "drain", "shard-0")


def test_models_are_loaded_pinned_and_unloaded(cluster: Operated) -> None:
    cluster.done("models", "load", "ranker@1", "--min-replicas", "1", "--max-replicas", "1")
    assert len(cluster.holders("ranker")) == 1
    cluster.done("models", "pin", "ranker@1")
    shown = " ".join(cluster.done("models", "show", "ranker@1").split())
    assert "standalone, pinned, 1 to 1 replicas" in shown
    assert "pinned" in cluster.done("models", "list")
    cluster.done("models", "pin", "ranker@1", "--off")
    cluster.done("models", "unload", "ranker@1")
    assert cluster.holders("ranker") == set()
    assert "lexical@1" in cluster.refused(Refused, "models", "unload", "lexical@1")
    assert "nobody@1" in cluster.refused(NotFound, "models", "load", "nobody@1")
    cluster.refused(InvalidInput, "models", "load", "ranker@1", "--min-replicas", "3", "--max-replicas", "1")


def test_an_operation_is_waited_for_and_cancelled_by_id(cluster: Operated) -> None:
    cluster.done("shards", "drain", "shard-0")
    begun = cluster.done("shards", "restart", "shard-1", "--no-wait").strip()
    assert cluster.run("ops", "cancel", begun[:12]).code == 0
    ended = Parse(cluster.done("ops", "show", begun, "--json"), pb.Operation())
    assert ended.state in (pb.OPERATION_STATE_CANCELLED, pb.OPERATION_STATE_SUCCEEDED)
    again = cluster.done("shards", "undrain", "shard-0", "--no-wait")
    assert "undrain shard-0" in again or cluster.run("ops", "wait", again.strip()).code == 0


def test_the_workspace_keeps_what_is_live(cluster: Operated) -> None:
    workspace = Workspace(cluster.root / "w")
    workspace.releases_dir.mkdir(parents=True)

    def kept_after(*arguments: str) -> str:
        assert headrace("release", *arguments, "--workspace", str(workspace.root)).code == 0
        return read_release(workspace, SURFACE).version

    with workspace.claim():
        workspace.note(Running(pid=1, router="127.0.0.1:1", controller=cluster.address))
        assert kept_after("deploy", cluster.release("r2", merged=100)) == "r2"
        assert kept_after("canary", cluster.release("r3", merged=50), "--percent", "5") == "r2"
        assert kept_after("promote", SURFACE) == "r3"
        assert kept_after("rollback", SURFACE) == "r2"
        elsewhere = ("--controller", cluster.address)
        assert kept_after("deploy", cluster.release("r4", merged=60), *elsewhere) == "r2"


def test_up_brings_back_nothing_that_operators_left(cluster: Operated) -> None:
    workspace = Workspace(cluster.root / "w")
    workspace.releases_dir.mkdir(parents=True)
    said: list[str] = []

    def up(version: str, **changes: object) -> dict[str, str]:
        write_release(workspace, read_release_file(Path(cluster.release(version, **changes))))
        asyncio.run(deploy_releases(cluster.address, workspace, said.append, NOTHING))
        return cluster.roles()

    assert up("r1") == {"live": "r1"}
    assert up("r2", merged=100)["live"] == "r2"
    cluster.done("release", "rollback", SURFACE)
    assert up("r2", merged=100)["live"] == "r1"
    assert said[-1] == f"{SURFACE} r1 stays live: the cluster has had r2 and left it."
    cluster.done("release", "deploy", cluster.release("r3", merged=50))
    cluster.done("release", "deploy", cluster.release("r4", merged=60))
    assert up("r2", merged=100)["live"] == "r4"
    assert up("r2", merged=101)["live"] == "r2"
