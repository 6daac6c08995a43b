"""Real servers with real certificates: who gets a connection, as whom, and what a new certificate changes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.certificates import make_certificates
from services import chassis
from services.tls import CertificateError, Certificates, Party, TlsFiles, open_channel, read_certificates
from shards.errors import InvalidInput
from tests.services import certified

ANSWERED = "answered"


@asynccontextmanager
async def serving(certificates: Certificates, *, mutual: bool = True) -> AsyncIterator[chassis.Server]:
    credentials = certificates.server_credentials(mutual=mutual)
    async with chassis.serve("127.0.0.1:0", register=[], service_names=[], tls=credentials) as server:
        yield server


async def asked(address: str, certificates: Certificates | None, expected: str = Party.ROUTER.value) -> str:
    """Return what becomes of a health check over a connection of its own."""
    own = [*chassis.channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    async with open_channel(address, certificates, expected, options=own) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return ANSWERED


def test_only_certificates_of_the_clusters_own_authority_get_in() -> None:
    async def main() -> None:
        async with serving(certified.certificates(Party.ROUTER)) as server:
            client = certified.files(Party.CLIENT)
            assert await asked(server.address, Certificates(client)) == ANSWERED
            assert await asked(server.address, None) == "UNAVAILABLE"
            nameless = replace(client, cert_path=None, key_path=None)
            assert await asked(server.address, Certificates(nameless)) == "UNAVAILABLE"
            stranger = certified.certificates(Party.CLIENT, "strangers")
            assert await asked(server.address, stranger) == "UNAVAILABLE"

    asyncio.run(main())


def test_a_caller_finds_out_that_somebody_else_took_the_port() -> None:
    async def main() -> None:
        client = certified.certificates(Party.CLIENT)
        async with serving(certified.certificates(Party.CLIENT)) as impostor:
            assert await asked(impostor.address, client) == "UNAVAILABLE"
        async with serving(certified.certificates(Party.SHARD)) as shard:
            assert await asked(shard.address, client) == "UNAVAILABLE"
            assert await asked(shard.address, client, Party.SHARD.value) == ANSWERED
        async with serving(certified.certificates(Party.ROUTER)) as router:
            assert await asked(router.address, client, "") == ANSWERED, "127.0.0.1 is among its names"

    asyncio.run(main())


def test_without_mutual_tls_a_token_is_enough_and_the_line_is_encrypted() -> None:
    async def main() -> None:
        async with serving(certified.certificates(Party.ROUTER), mutual=False) as server:
            nameless = TlsFiles(ca_path=certified.files(Party.CLIENT).ca_path)
            assert await asked(server.address, Certificates(nameless)) == ANSWERED
            assert await asked(server.address, None) == "UNAVAILABLE"

    asyncio.run(main())


def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_certificates(tmp_path)
    files = TlsFiles.in_folder(tmp_path, Party.ROUTER.word)
    assert files.cert_path

    async def main() -> None:
        client = Certificates(TlsFiles.in_folder(tmp_path, Party.CLIENT.word))
        async with serving(Certificates(files)) as server:
            first = await asyncio.to_thread(_serial, server.address, tmp_path)
            make_certificates(tmp_path, parties=[Party.ROUTER])
            second = await asyncio.to_thread(_serial, server.address, tmp_path)
            assert first != second
            assert await asked(server.address, client) == ANSWERED
            assert files.cert_path
            files.cert_path.write_text("no certificate")
            assert await asyncio.to_thread(_serial, server.address, tmp_path) == second
            assert await asked(server.address, client) == ANSWERED
            assert "the certificates from before stay in use" in caplog.text

    asyncio.run(main())


def _serial(address: str, folder: Path) -> object:
    """Return the serial number of the certificate that is shown at HOST:PORT."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client-key.pem")
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=Party.ROUTER.value) as line,
    ):
        return (line.getpeercert() or {})["serialNumber"]


@pytest.mark.parametrize("broken", ["ca.pem", "router.pem", "router-key.pem"])
@pytest.mark.parametrize("content", [None, "", "-----BEGIN NONSENSE-----"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, broken: str, content: str | None) -> None:
    make_certificates(tmp_path)
    path = tmp_path / broken
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(CertificateError, match=str(path)):
        read_certificates(TlsFiles.in_folder(tmp_path, "router"))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    mixed = replace(TlsFiles.in_folder(tmp_path, "router"), key_path=tmp_path / "shard-key.pem")
    with pytest.raises(CertificateError, match="no certificate and its key"):
        read_certificates(mixed)
    with pytest.raises(ValueError, match="go together"):
        TlsFiles(ca_path=tmp_path / "ca.pem", cert_path=tmp_path / "router.pem")


def test_an_authority_signs_again_and_keys_are_its_owners_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    authority = (tmp_path / "ca.pem").read_bytes()
    make_certificates(tmp_path, parties=[Party.CLIENT], hosts=["ignored.example"])
    assert (tmp_path / "ca.pem").read_bytes() == authority
    keys = list(tmp_path.glob("*-key.pem"))
    assert len(keys) == len(Party) + 1
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    (tmp_path / "ca-key.pem").write_text("gone")
    with pytest.raises(InvalidInput, match=r"ca-key\.pem"):
        make_certificates(tmp_path)
