"""Routers and shards that ask who calls, over real connections: a search passes, wrong callers do not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.certificates import make_certificates
from router.client import HeadraceClient, SearchError, TlsFiles
from router.credentials import NOTHING, Credentials
from router.shard_channels import ShardChannels
from services import chassis
from services.access import AccessRules, Caller, Role, digest
from services.chassis import channel_options
from services.dialling import Dialling
from services.followed_rules import RulesSource
from services.shard_access import SHARD_CALLER, cluster_callers
from services.tls import Certificates, Party
from shards.errors import HeadraceError, Unauthenticated, Unavailable
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running
from tests.services import certified
from tests.services.shard_client import connect
from tests.shards.bundles import SURFACE

SHARD_TOKEN = "shard-token"
INTERNAL = AccessRules(callers=cluster_callers(digest(SHARD_TOKEN), (), certificates=False))
CERTIFIED = AccessRules(callers=cluster_callers("", (), certificates=True))


def callers_by_certificate() -> AccessRules:
    roles = {Party.CLIENT: Role.SEARCH, Party.OPERATOR: Role.OPERATOR}
    return AccessRules(
        callers=tuple(
            Caller(name=party.word, certificate=party.value, roles=(role,)) for party, role in roles.items()
        )
    )


def showing(party: Party) -> Credentials:
    return Credentials(tls=certified.files(party))


async def refused(address: str, credentials: Credentials) -> list[type[HeadraceError]]:
    """Return what each kind of call of a shard is refused with."""
    kinds = []
    async with connect(address, credentials) as client:
        for call in (client.shard(), client.drain()):
            with pytest.raises(HeadraceError) as caught:
                await call
            kinds.append(type(caught.value))
    return kinds


async def search(address: str, token: str | None = None, tls: TlsFiles | None = None) -> object:
    """Return whether a search was answered whole, or the code that it was refused with."""
    async with HeadraceClient(address, token, tls=tls, timeout_s=5.0, max_attempts=1) as client:
        try:
            return (await client.search(SURFACE, "red mug")).complete
        except SearchError as error:
            return error.code


def test_a_search_over_mutual_tls_and_callers_by_their_certificates(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        tls_path = str(certified.folder())
        router_only = showing(Party.ROUTER)
        async with (
            real_shards(
                models, tmp_path, ["s1"], access=CERTIFIED, tls_path=tls_path, credentials=router_only
            ) as shards,
            running(
                models.placed_on(shards),
                tmp_path,
                tls=certified.files(Party.ROUTER),
                access=callers_by_certificate,
            ) as router,
        ):
            assert await search(router.address, tls=certified.files(Party.CLIENT)) is True
            denied = await search(router.address, tls=certified.files(Party.OPERATOR))
            assert denied is grpc.StatusCode.PERMISSION_DENIED
            unknown = await search(router.address, tls=certified.files(Party.SHARD))
            assert unknown is grpc.StatusCode.UNAUTHENTICATED
            assert await search(router.address) is grpc.StatusCode.UNAVAILABLE
            stranger = certified.files(Party.CLIENT, "strangers")
            assert await search(router.address, tls=stranger) is grpc.StatusCode.UNAVAILABLE

            for party in (Party.CLIENT, Party.OPERATOR, Party.SHARD):
                assert await refused(shards["s1"], showing(party)) == [Unauthenticated] * 2
            assert await refused(shards["s1"], NOTHING) == [Unavailable] * 2
            async with connect(shards["s1"], showing(Party.CONTROLLER)) as controller:
                assert (await controller.shard()).shard_id == "s1"

    asyncio.run(main())


def test_shards_answer_the_clusters_token_and_no_other(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        shown = Credentials(token=SHARD_TOKEN)
        async with real_shards(models, tmp_path, ["s1"], access=INTERNAL, credentials=shown) as shards:
            placement = models.placed_on(shards)
            async with running(placement, tmp_path, shard_token=SHARD_TOKEN) as router:
                assert await search(router.address) is True
            async with running(placement, tmp_path) as stranger:
                assert await search(stranger.address) is not True
            assert await refused(shards["s1"], NOTHING) == [Unauthenticated] * 2
            assert await refused(shards["s1"], Credentials(token="other")) == [Unauthenticated] * 2

    asyncio.run(main())


def test_a_shard_follows_the_operators_file_and_lets_nobody_else_in(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "access.json"

    def write(**tokens: str) -> RulesSource:
        callers = [
            {"name": f"router-{role}", "token_sha256": digest(token), "roles": [role]}
            for role, token in tokens.items()
        ]
        path.write_text(json.dumps({"callers": callers}))
        return lambda: INTERNAL

    async def main() -> None:
        write(internal="first")
        async with real_shards(
            models,
            tmp_path,
            ["s1"],
            access=INTERNAL,
            access_path=str(path),
            credentials=Credentials(token="first"),
        ) as shards:
            write(internal="second", operator="boss")
            async with connect(shards["s1"], Credentials(token="second")) as client, asyncio.timeout(10):
                while True:
                    try:
                        assert (await client.shard()).shard_id == "s1"
                        break
                    except Unauthenticated:
                        await asyncio.sleep(0.05)
            assert await refused(shards["s1"], Credentials(token="first")) == [Unauthenticated] * 2
            assert await refused(shards["s1"], Credentials(token="boss")) == [Unauthenticated] * 2
            async with connect(shards["s1"], Credentials(token=SHARD_TOKEN)) as own:
                assert (await own.shard()).shard_id == "s1"

    asyncio.run(main())


def test_without_mutual_tls_a_token_over_an_encrypted_line_is_enough(models: Models, tmp_path: Path) -> None:
    rules = AccessRules(callers=(Caller(name="web", token_sha256=digest("web-token"), roles=(Role.SEARCH,)),))

    async def main() -> None:
        nameless = TlsFiles(ca_path=certified.files(Party.CLIENT).ca_path)
        async with (
            real_shards(models, tmp_path, ["s1"]) as shards,
            running(
                models.placed_on({}),
                tmp_path,
                tls=certified.files(Party.ROUTER),
                mutual_tls=False,
                access=lambda: rules,
            ) as router,
        ):
            assert shards
            found = await search(router.address, "web-token", nameless)
            assert found is grpc.StatusCode.UNAVAILABLE, "let in, but no shard holds anything"
            assert await search(router.address, "other", nameless) is grpc.StatusCode.UNAUTHENTICATED
            assert await search(router.address, None, nameless) is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(main())


def test_the_clusters_names_are_its_own() -> None:
    caller = Caller(name=SHARD_CALLER, token_sha256=digest("x"), roles=(Role.INTERNAL,))
    with pytest.raises(ValueError, match="'shard' is there twice"):
        AccessRules(callers=cluster_callers(digest(SHARD_TOKEN), (caller,), certificates=False))


def test_pages_and_metadata_have_limits(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with running(models.placed_on({}), tmp_path, max_page_size=20) as router:
            async with HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client:
                with pytest.raises(SearchError, match="must be 1 to 20"):
                    await client.search(SURFACE, "red mug", page_size=21)
            huge = await search(router.address, "t" * 20_000)
            assert huge is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(main())


def test_a_router_shows_its_new_certificate_to_shards_without_a_restart(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    shard = Certificates(TlsFiles.in_folder(tmp_path, Party.SHARD.word))
    shown = Dialling(certificates=Certificates(TlsFiles.in_folder(tmp_path, Party.ROUTER.word)))

    async def certificate(_: bytes, context: Any) -> bytes:
        return bytes(context.auth_context()["x509_pem_cert"][0])

    def register(server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {"Shown": grpc.unary_unary_rpc_method_handler(certificate)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Callers", handlers),))

    async def main() -> None:
        channels = ShardChannels(channel_options(), closing_s=1.0, shown=shown)
        async with chassis.serve(
            "127.0.0.1:0",
            register=[register],
            service_names=[],
            tls=shard.server_credentials(mutual=True),
        ) as server:
            following = asyncio.create_task(channels.follow_certificates(every_s=0.05))

            async def seen() -> bytes:
                return await channels.method(server.address, "/test.v1.Callers/Shown")(b"", timeout=10)

            first = await seen()
            make_certificates(tmp_path, parties=[Party.ROUTER])
            async with asyncio.timeout(20):
                while await seen() == first:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            following.cancel()
            await channels.close()

    asyncio.run(main())
