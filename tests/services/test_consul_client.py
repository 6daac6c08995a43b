import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.consul_client import ConsulClient
from services.consul_leadership import candidacy
from services.consul_membership import watch_members
from services.consul_placement_store import ConsulPlacementStore
from services.consul_registration import Registration, ServiceName, registered
from services.consul_session import SessionSettings
from services.consul_settings import ConsulTls
from services.placement_store import Committed
from shards.errors import PermissionDenied, Unavailable
from shards.placement import Placement
from tests.services.consul_agent import ConsulAgent, make_certificates, make_tokens

POLICIES = Path(__file__).parents[2] / "deploy"
FIRST = Placement(generation=1, endpoints={"shard-0": "127.0.0.1:4000"})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    """An agent that denies what no policy allows."""
    hcl = 'acl { enabled = true, default_policy = "deny" }'
    with ConsulAgent(tmp_path_factory.mktemp("guarded"), hcl=hcl) as agent:
        yield agent


@pytest.fixture(scope="module")
def tokens(guarded: ConsulAgent) -> dict[str, str]:
    """A token for each of the policies that we ship."""
    files = {"controller": "consul-policy.hcl", "reader": "consul-reader-policy.hcl"}
    return make_tokens(guarded, {name: [POLICIES / file] for name, file in files.items()})


def test_a_controllers_policy_suffices_to_lead_and_commit(
    guarded: ConsulAgent, tokens: dict[str, str]
) -> None:
    async def main() -> None:
        settings = guarded.settings("headrace", token=tokens["controller"])
        async with (
            ConsulClient(settings) as client,
            candidacy(settings, SessionSettings(name="c"), random.Random(1)) as leadership,
            asyncio.timeout(10),
        ):
            async for leading in leadership.changes():
                if leading:
                    break
            assert await ConsulPlacementStore(client).commit(0, FIRST) == Committed(FIRST)

    asyncio.run(main())


def test_a_readers_policy_suffices_to_read_register_and_see_but_not_to_commit(
    guarded: ConsulAgent, tokens: dict[str, str]
) -> None:
    registration = Registration(service=ServiceName.ROUTER, id="a", address="127.0.0.1:1", look_every_s=0.2)

    async def main() -> None:
        settings = guarded.settings("headrace", token=tokens["reader"])
        async with ConsulClient(settings) as client, asyncio.timeout(10):
            store = ConsulPlacementStore(client)
            held = await store.read()
            with pytest.raises(PermissionDenied, match="ACL"):
                await store.commit(held.generation, Placement(generation=held.generation + 1))
            async with registered(client, lambda: [registration], random.Random(1)):
                while not await known(client):
                    pass
                assert await anext(watch_members(client, ServiceName.ROUTER, random.Random(1))) == {}

    asyncio.run(main())


async def known(client: ConsulClient) -> bool:
    _, entries = await client.ask(lambda api: api.health.service("headrace-router"))
    return bool(entries)


@pytest.mark.parametrize("token", ["", "00000000-0000-0000-0000-000000000000"])
def test_who_has_no_right_is_told_so(guarded: ConsulAgent, token: str) -> None:
    async def main() -> None:
        async with ConsulClient(guarded.settings("headrace", token=token)) as client:
            with pytest.raises(PermissionDenied, match="ACL"):
                await ConsulPlacementStore(client).read()

    asyncio.run(main())


def test_the_environment_has_no_say(consul_agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "00000000-0000-0000-0000-000000000000")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def main() -> None:
        async with ConsulClient(consul_agent.settings("environment")) as client:
            assert await ConsulPlacementStore(client).read() == Placement()
            assert await client.ask(token_of) is None

    asyncio.run(main())


async def token_of(api: object) -> object:
    return getattr(api, "token", "no such attribute")


def test_tls_proves_both_sides(tmp_path: Path) -> None:
    hcl, ours = make_certificates(tmp_path)

    async def read(agent: ConsulAgent, tls: ConsulTls | None) -> Placement:
        async with ConsulClient(agent.settings("tls", tls=tls)) as client:
            return await ConsulPlacementStore(client).read()

    with ConsulAgent(tmp_path, hcl=hcl, tls=ours) as agent:
        assert asyncio.run(read(agent, ours)) == Placement()
        strangers = {
            "self-signed certificate|unable to get local issuer": ConsulTls(),
            "certificate required|bad certificate|RemoteProtocolError|ReadError": ConsulTls(
                ca_path=ours.ca_path
            ),
            "400|RemoteProtocolError|ReadError": None,
        }
        for reason, tls in strangers.items():
            with pytest.raises(Unavailable, match=reason):
                asyncio.run(read(agent, tls))


def test_a_certificate_that_is_none_is_refused_on_entry(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    async def main(agent_settings: ConsulTls) -> None:
        agent = ConsulAgent(tmp_path / "never started")
        async with ConsulClient(agent.settings("tls", tls=agent_settings)):
            pass

    for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with pytest.raises(OSError, match=r"no start line|NO_CERTIFICATE|No such file|PEM"):
            asyncio.run(main(ConsulTls(ca_path=path)))
