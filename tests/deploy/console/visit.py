"""A console over scripted servers, and a browser's side of it without a browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from starlette.testclient import TestClient

from deploy.console.app import console
from deploy.console.console_settings import ConsoleSettings
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2
from services.codec import release_to_proto
from services.followed_rules import RulesSource
from tests.deploy.console.scripted_router import ScriptedRouter, scripted_router
from tests.deploy.scripted_cluster import ScriptedCluster, scripted_cluster
from tests.shards.bundles import RELEASE

RANKER = types_pb2.ModelVersion(model="ranker", version="7")
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


@dataclass(frozen=True)
class Visit:
    """A browser with cookies, and the servers behind the console that it looks at."""

    browser: TestClient
    cluster: ScriptedCluster
    router: ScriptedRouter

    def page(self, path: str, status: int = 200) -> str:
        """Return a page."""
        answer = self.browser.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, path: str, **fields: str) -> httpx2.Response:
        """Send a form as a page of the console would, without following where it leads."""
        known = _CSRF.search(self.browser.get("/login").text)
        assert known
        form = {"csrf": known[1], **fields}
        return self.browser.post(path, data=form, follow_redirects=False)


@contextmanager
def visiting(
    *, operate: bool = False, access: RulesSource | None = None, workspace: Path | None = None
) -> Iterator[Visit]:
    """Look at a cluster of two shards, one surface and no operations."""
    with scripted_cluster(access) as cluster, scripted_router(access) as router:
        cluster.answers |= quiet_cluster()
        settings = ConsoleSettings(
            router=router.address, controller=cluster.address, operate=operate, workspace=workspace
        )
        with TestClient(console(settings), base_url="http://localhost:8600") as browser:
            yield Visit(browser, cluster, router)


def quiet_cluster() -> dict[str, pb.ListShardsResponse | pb.ListModelsResponse | pb.ListReleasesResponse]:
    """Return what such a cluster says of itself."""
    replica = shard_service_pb2.Replica(
        model=RANKER,
        stage=types_pb2.STAGE_RANKING,
        state=shard_service_pb2.REPLICA_STATE_READY,
        memory_bytes=30 << 20,
    )
    shards = [
        pb.Shard(
            shard_id="shard-0",
            address="127.0.0.1:7001",
            state=pb.SHARD_STATE_SERVING,
            capacity_bytes=120 << 20,
            memory_bytes=30 << 20,
            replicas=[replica],
            load=12.5,
        ),
        pb.Shard(shard_id="shard-1", state=pb.SHARD_STATE_DOWN, recycle_reason="a library leaks"),
    ]
    model = pb.Model(
        model=RANKER,
        stage=types_pb2.STAGE_RANKING,
        shard_ids=["shard-0"],
        surfaces=["shop"],
        replicas=[pb.ShardReplica(shard_id="shard-0", replica=replica)],
    )
    surface = pb.SurfaceReleases(surface="shop", live=release_to_proto(RELEASE))
    return {
        "ListShards": pb.ListShardsResponse(shards=shards, generation=12),
        "ListModels": pb.ListModelsResponse(models=[model]),
        "ListReleases": pb.ListReleasesResponse(surfaces=[surface]),
    }
