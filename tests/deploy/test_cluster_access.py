import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.caller_channel import caller_channel
from deploy.cluster_access import access_rules, issue_tokens, own_token, shard_rules, shard_token
from deploy.controller_client import ask, overview
from deploy.settings import ClusterSettings, caller_token, child_environment
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub
from router.credentials import Credentials
from services.access import Role, Shown, authorise, digest
from services.shard_access import ROUTER, SHARD_CALLER, SUPERVISOR
from services.tls import Party
from shards.errors import InvalidInput, PermissionDenied, Unauthenticated
from tests.services.callers import access
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller


def settings_with(folder: Path, *names: str) -> ClusterSettings:
    callers = [{"name": name, "token_sha256": digest(name), "roles": ["search"]} for name in names]
    path = folder / "access.json"
    path.write_text(json.dumps({"callers": callers}))
    (folder / "state").mkdir()
    return ClusterSettings(workspace=str(folder), access_path=str(path))


def test_the_clusters_own_callers_get_new_tokens_and_least_roles(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "web")
    issue_tokens(settings)
    first = own_token(settings, ROUTER)
    issue_tokens(settings)
    router, supervisor = own_token(settings, ROUTER), own_token(settings, SUPERVISOR)
    assert len({first, router, supervisor}) == 3
    rules = access_rules(settings)
    assert rules is not None
    assert authorise(rules(), Shown("Bearer web"), (Role.SEARCH,)).name == "web"
    assert authorise(rules(), Shown(f"Bearer {router}"), (Role.INTERNAL,)).name == ROUTER
    with pytest.raises(PermissionDenied):
        authorise(rules(), Shown(f"Bearer {router}"), (Role.OPERATOR, Role.SEARCH))
    for role in (Role.OPERATOR, Role.SEARCH):
        assert authorise(rules(), Shown(f"Bearer {supervisor}"), (role,)).name == SUPERVISOR
    for name in (ROUTER, SUPERVISOR):
        assert settings.folders.caller_token_path(name).stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_are_neither_rules_nor_tokens(tmp_path: Path) -> None:
    settings = ClusterSettings(workspace=str(tmp_path))
    issue_tokens(settings)
    assert access_rules(settings) is None
    assert own_token(settings, ROUTER) is None
    assert not list(tmp_path.iterdir())


def test_the_clusters_own_names_are_taken(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'supervisor' is there twice"):
        issue_tokens(settings_with(tmp_path, "supervisor"))


def test_the_token_comes_from_the_environment_and_stays_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_TOKEN", raising=False)
    assert caller_token() is None
    monkeypatch.setenv("HEADRACE_TOKEN", "abc\n")
    assert caller_token() == "abc"
    assert "HEADRACE_TOKEN" not in child_environment(tmp_path)
    monkeypatch.setenv("HEADRACE_TOKEN", "two words")
    with pytest.raises(InvalidInput, match="HEADRACE_TOKEN: a token is made of") as caught:
        caller_token()
    assert "two words" not in str(caught.value)


def test_commands_show_their_token_to_the_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()

    async def main() -> None:
        async with (
            in_process_shards(tmp_path / "state") as shards,
            running_controller(tmp_path, shards, access=access) as controller,
        ):
            monkeypatch.setenv("HEADRACE_TOKEN", "operator-token")
            seen = await asyncio.to_thread(ask, controller.address, overview)
            assert len(seen.shards) == 2
            monkeypatch.setenv("HEADRACE_TOKEN", "search-token")
            with pytest.raises(PermissionDenied, match="'operator'"):
                await asyncio.to_thread(ask, controller.address, overview)
            monkeypatch.delenv("HEADRACE_TOKEN")
            with pytest.raises(Unauthenticated, match="no token"):
                await asyncio.to_thread(ask, controller.address, overview)

    asyncio.run(main())


def test_a_channel_keeps_the_metadata_of_its_calls(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()

    async def main() -> None:
        async with (
            in_process_shards(tmp_path / "state") as shards,
            running_controller(tmp_path, shards, access=access) as controller,
            caller_channel(
                controller.address, Credentials(token="search-token"), Party.CONTROLLER
            ) as channel,
        ):
            stub = ClusterServiceStub(channel)
            call = stub.ListShards(pb.ListShardsRequest(), timeout=10, metadata=(("x-request-id", "id-7"),))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert b"id-7" in dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]

    asyncio.run(main())


def test_shards_that_outlive_their_controller_know_the_next_one(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "web")
    issue_tokens(settings)
    before = shard_rules(settings)
    issue_tokens(settings)
    assert before is not None
    shown = Shown(f"Bearer {shard_token(settings)}")
    assert authorise(before, shown, (Role.INTERNAL,)).name == SHARD_CALLER
    for name in ("web", own_token(settings, ROUTER), own_token(settings, SUPERVISOR)):
        with pytest.raises(Unauthenticated):
            authorise(before, Shown(f"Bearer {name}"), (Role.INTERNAL,))


def test_with_certificates_shards_know_processes_by_theirs(tmp_path: Path) -> None:
    settings = replace(settings_with(tmp_path, "web"), tls_path=str(tmp_path))
    issue_tokens(settings)
    rules = shard_rules(settings)
    assert rules is not None
    assert {caller.certificate for caller in rules.callers} == {"router.headrace", "controller.headrace"}
    assert shard_token(settings) is None
    open_settings = replace(settings, access_path="")
    callers = access_rules(open_settings)
    assert callers is not None
    client = Shown(certificate_names=("client.headrace",))
    assert authorise(callers(), client, (Role.SEARCH,)).name == "client"
    with pytest.raises(PermissionDenied):
        authorise(callers(), client, (Role.OPERATOR,))
    router = Shown(certificate_names=("router.headrace",))
    assert authorise(callers(), router, (Role.INTERNAL,)).name == ROUTER


def test_without_a_supervisor_the_environment_has_the_token_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings_with(tmp_path, "web"), supervised=False)
    monkeypatch.delenv("HEADRACE_TOKEN", raising=False)
    with pytest.raises(InvalidInput, match="HEADRACE_TOKEN: is missing"):
        shard_token(settings)
    with pytest.raises(InvalidInput, match="names nobody with the role 'internal'"):
        shard_rules(settings)
    monkeypatch.setenv("HEADRACE_TOKEN", "abc")
    assert shard_token(settings) == "abc"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"host": "0.0.0.0"}, "other hosts reach 0.0.0.0"),
        ({"host": "example.com"}, "other hosts reach example.com"),
        ({"shard_host": "::"}, "other hosts reach ::"),
        ({"host": "10.0.0.1", "access_path": "access.json"}, "--tls"),
        ({"router_mutual_tls": False, "tls_path": "certs"}, "--access"),
    ],
)
def test_nothing_is_open_to_other_hosts_by_accident(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ClusterSettings(workspace="w", **fields)
    for wanted in ({"host": "0.0.0.0", "insecure": True}, {"host": "0.0.0.0", "tls_path": "certs"}):
        assert ClusterSettings(workspace="w", **wanted)
    for loopback in ("127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"):
        assert ClusterSettings(workspace="w", host=loopback)
