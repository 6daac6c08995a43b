"""`headrace up` with certificates and rules of access, from end to end: real processes and a real Ray."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx2
import pytest

from deploy.caller_channel import caller_channel
from deploy.processes import descendants
from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub
from router.client import HeadraceClient, SearchError
from router.credentials import Credentials
from services.access import digest
from services.tls import Party
from shards.errors import HeadraceError, Unauthenticated
from tests.deploy.running_cluster import RunningCluster, headrace, make_workspace, running_cluster, wait_until
from tests.services import certified
from tests.services.shard_client import connect
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster

WEB_TOKEN, NEXT_TOKEN = "web-token-1a2b3c4d5e", "next-token-6f7a8b9c0d"
OPERATOR_TOKEN = "operator-token-2b3c4d5e6f"


class Secured(NamedTuple):
    """A cluster with certificates, and the file that says who may call it."""

    cluster: RunningCluster
    access_path: Path


def write_rules(path: Path, web_token: str) -> None:
    callers = [
        {"name": "web", "token_sha256": digest(web_token), "roles": ["search"]},
        {"name": "console", "token_sha256": digest(OPERATOR_TOKEN), "roles": ["operator", "search"]},
        {"name": "oncall", "certificate": Party.OPERATOR.value, "roles": ["operator", "search"]},
    ]
    path.write_text(json.dumps({"callers": callers}))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    root = tmp_path_factory.mktemp("secured")
    access = root / "access.json"
    write_rules(access, WEB_TOKEN)
    workspace = make_workspace(root / "w")
    secure = ("--tls", str(certified.folder()), "--access", str(access))
    sizes = ("--routers", "1", "--shards", "1", "--console-port", "0")
    with running_cluster(workspace, *secure, *sizes) as cluster:
        yield Secured(cluster, access)


def command(workspace: Workspace, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        headrace(*arguments, "--workspace", str(workspace.root)),
        cwd=PROJECT_ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def code_of(cluster: RunningCluster, token: str | None, party: Party) -> grpc.StatusCode | None:
    """Return what a search is refused with, None for one that is answered."""

    async def searched() -> grpc.StatusCode | None:
        files = certified.files(party)
        async with HeadraceClient(cluster.router, token, tls=files, timeout_s=20.0) as client:
            try:
                assert (await client.search(SURFACE, "red mug")).items
            except SearchError as error:
                return error.code
            return None

    return asyncio.run(searched())


def shard_addresses(cluster: RunningCluster) -> list[str]:
    """Return where shards are, which only the cluster's own and operators are told."""
    files = certified.files(Party.OPERATOR)

    async def asked() -> list[str]:
        async with caller_channel(cluster.controller, Credentials(tls=files), Party.CONTROLLER) as channel:
            stub = ClusterServiceStub(channel)
            return [s.address for s in (await stub.ListShards(pb.ListShardsRequest(), timeout=20)).shards]

    return asyncio.run(asked())


def test_commands_show_certificates_and_tokens(secured: Secured) -> None:
    workspace, folder = secured.cluster.workspace, str(certified.folder())
    shown = command(workspace, "status", HEADRACE_TLS=folder)
    assert shown.returncode == 0, shown.stderr
    assert "shard-0" in shown.stdout
    found = command(workspace, "search", "red mug", HEADRACE_TLS=folder)
    assert found.returncode == 0, found.stderr
    refused = command(workspace, "status", HEADRACE_TLS=folder, HEADRACE_TLS_IDENTITY="client")
    assert "nobody by the certificate of 'client.headrace'" in refused.stderr
    assert command(workspace, "status").returncode == 1


@contextmanager
def logged_in(console: str, token: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{console}", follow_redirects=True, timeout=20) as visitor:
        form = re.search(r'name="csrf" value="([0-9a-f]+)"', visitor.get("/login").text)
        assert form
        visitor.post("/login", data={"csrf": form[1], "token": token, "next": "/search"})
        yield visitor


def test_the_console_shows_visitors_what_their_tokens_open(secured: Secured) -> None:
    shown = {}
    for token in (OPERATOR_TOKEN, WEB_TOKEN, "guess-7a8b9c0d1e2f"):
        with logged_in(secured.cluster.console, token) as visitor:
            found = visitor.get("/search", params={"surface": SURFACE, "q": "red mug"})
            shown[token] = (found.status_code, "shard-0" in visitor.get("/shards").text)
    assert list(shown.values()) == [(200, True), (200, False), (401, False)]


def test_routers_and_shards_turn_wrong_callers_away(secured: Secured) -> None:
    cluster = secured.cluster
    assert code_of(cluster, WEB_TOKEN, Party.CLIENT) is None
    assert code_of(cluster, None, Party.OPERATOR) is None
    assert code_of(cluster, None, Party.CLIENT) is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(cluster, "guess", Party.CLIENT) is grpc.StatusCode.UNAUTHENTICATED
    addresses = shard_addresses(cluster)
    assert addresses

    async def called(credentials: Credentials) -> None:
        async with connect(addresses[0], credentials) as client:
            await client.shard()

    asyncio.run(called(Credentials(tls=certified.files(Party.CONTROLLER))))
    for party, token in ((Party.OPERATOR, None), (Party.CLIENT, WEB_TOKEN)):
        with pytest.raises(Unauthenticated):
            asyncio.run(called(Credentials(token=token, tls=certified.files(party))))
    with pytest.raises(HeadraceError):
        asyncio.run(called(Credentials()))


def test_a_token_is_replaced_while_the_cluster_runs(secured: Secured) -> None:
    write_rules(secured.access_path, NEXT_TOKEN)
    wait_until(lambda: code_of(secured.cluster, NEXT_TOKEN, Party.CLIENT) is None, within_s=30)
    assert code_of(secured.cluster, WEB_TOKEN, Party.CLIENT) is grpc.StatusCode.UNAUTHENTICATED
    secured.access_path.write_text('{"callers": []}')
    log = secured.cluster.workspace.logs_dir / "router-0.log"

    def told() -> bool:
        assert code_of(secured.cluster, NEXT_TOKEN, Party.CLIENT) is None
        return "the rules of access from before stay in force" in log.read_text()

    wait_until(told, within_s=30)


def test_what_the_supervisor_and_operators_did_is_written_down(secured: Secured) -> None:
    workspace, folder = secured.cluster.workspace, str(certified.folder())
    frozen = command(workspace, "shards", "freeze", HEADRACE_TLS=folder)
    assert frozen.returncode == 0, frozen.stderr
    seen = [json.loads(line) for line in command(workspace, "audit", "--json").stdout.splitlines()]
    assert ("supervisor", "DeployRelease") in {(entry["caller"], entry["method"]) for entry in seen}
    assert (seen[-1]["caller"], seen[-1]["method"], seen[-1]["result"]) == (
        "oncall",
        "FreezeCluster",
        "accepted",
    )


def test_nothing_that_was_written_holds_a_secret(secured: Secured) -> None:
    workspace = secured.cluster.workspace
    kept = [path for path in workspace.state_dir.glob("*-token") if path.is_file()]
    assert len(kept) >= 4
    secrets = [WEB_TOKEN, NEXT_TOKEN, *(path.read_text() for path in kept)]
    folders = (workspace.root, Path(workspace.ray_record_path.read_text()))
    written = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p not in kept]
    assert workspace.logs_dir / "router-0.log" in written
    lines = [Path(f"/proc/{p.pid}/cmdline") for p in descendants(secured.cluster.process.pid)]
    written += [line for line in lines if line.exists()]
    key = (certified.folder() / "router-key.pem").read_text().splitlines()[1]
    for path in written:
        content = path.read_bytes()
        assert not [secret for secret in (*secrets, key) if secret.encode() in content], path
