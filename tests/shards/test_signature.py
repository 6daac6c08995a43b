"""Signed bundles: what trusted keys let in, and that nothing else gets past them, whoever reads."""

import asyncio
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from router.gate_models import GateModels
from services.bundle_catalogue import BundleCatalogue
from services.status import code_of, to_status
from shards.bundle import open_bundle
from shards.errors import CorruptBundle, InvalidInput, UntrustedBundle
from shards.gate_model import open_gate
from shards.json_codec import parse, render
from shards.manifest import parse_manifest, render_manifest
from shards.placement import Placement
from shards.release import ModelVersion, Release
from shards.residency import Residency
from shards.signature import new_key, public_name, read_key, read_trusted_keys, sign
from tests.deploy.running_cluster import run
from tests.shards.bundles import RELEASE, build_models
from tests.shards.gates import VERSION, write_gate

OTHERS = "tcC0GCRmMyWn0M9Jf0pB3JqVbZbT1vZ3cU0m1p3m3Xk="


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    path = tmp_path / "signing.pem"
    path.write_bytes(new_key())
    return path


def signed(path: Path, key_path: Path) -> tuple[str, ...]:
    """Sign a bundle; returns the keys that trust it."""
    key = read_key(key_path)
    (path / "signature.json").write_bytes(sign((path / "manifest.json").read_bytes(), key))
    return (public_name(key),)


def refused(path: Path, trusted: tuple[str, ...], problem: str) -> None:
    with pytest.raises(UntrustedBundle, match=problem) as caught:
        open_bundle(path, VERSION, trusted)
    assert caught.value.file == "signature.json"


def test_a_bundle_that_a_trusted_key_has_signed_is_opened(tmp_path: Path, key_path: Path) -> None:
    path = write_gate(tmp_path)
    trusted = signed(path, key_path)
    assert open_bundle(path, VERSION, (OTHERS, *trusted)).manifest.model_version == VERSION
    assert open_bundle(path, VERSION).manifest.model_version == VERSION, "nobody asked for signatures"
    assert open_gate(path, VERSION, trusted).version == VERSION


def test_unsigned_and_wrongly_signed_bundles_are_refused(tmp_path: Path, key_path: Path) -> None:
    path = write_gate(tmp_path)
    trusted = (public_name(read_key(key_path)),)
    refused(path, trusted, "is missing, and only signed bundles are trusted here")
    signed(path, key_path)
    refused(path, (OTHERS,), "which is not trusted")
    signature = path / "signature.json"
    whole = parse(signature.read_bytes())
    for broken, problem in (
        ({**whole, "signature": whole["signature"][:-8] + "AAAAAA=="}, "is not that of this manifest"),
        ({**whole, "signature": "no base64!"}, "is not that of this manifest"),
        ({**whole, "signature": ""}, "is not that of this manifest"),
        ({**whole, "algorithm": "none"}, "unknown algorithm, 'none'"),
        ({"public_key": whole["public_key"]}, "cannot be read"),
    ):
        signature.write_bytes(render(broken))
        refused(path, trusted, problem)
    signature.write_bytes(b"\xff\x00")
    refused(path, trusted, "cannot be read")
    signature.unlink()
    signature.symlink_to(tmp_path / "signing.pem")
    refused(path, trusted, "is missing")


def test_whatever_is_altered_after_signing_is_refused(tmp_path: Path, key_path: Path) -> None:
    path = write_gate(tmp_path)
    trusted = signed(path, key_path)
    manifest = path / "manifest.json"
    described = parse_manifest(manifest.read_bytes())
    manifest.write_bytes(render_manifest(replace(described, metrics={"ndcg": 1.0})))
    refused(path, trusted, "is not that of this manifest")
    manifest.write_bytes(render_manifest(described))
    with (path / "gate.npz").open("ab") as file:
        file.write(b"!")
    with pytest.raises(CorruptBundle, match=r"gate\.npz"):
        open_bundle(path, VERSION, trusted)


def test_a_signature_is_for_one_version_only(tmp_path: Path, key_path: Path) -> None:
    path = write_gate(tmp_path / "a")
    trusted = signed(path, key_path)
    other = ModelVersion(VERSION.model, "other")
    second = write_gate(tmp_path / "b")
    described = parse_manifest((second / "manifest.json").read_bytes())
    (second / "manifest.json").write_bytes(render_manifest(replace(described, version=other.version)))
    shutil.copy(path / "signature.json", second)
    with pytest.raises(UntrustedBundle):
        open_bundle(second, other, trusted)


def test_routers_controllers_and_shards_ask_for_signatures(tmp_path: Path, key_path: Path) -> None:
    path = write_gate(tmp_path)
    trusted = (public_name(read_key(key_path)),)
    gate = replace(RELEASE.gate, model=VERSION)
    release: Release = replace(RELEASE, gate=gate)
    placement = Placement(generation=1, releases={release.surface: release})
    assert not asyncio.run(GateModels(tmp_path, trusted).read(placement))
    with pytest.raises(UntrustedBundle):
        BundleCatalogue(tmp_path, trusted).describe(VERSION)
    signed(path, key_path)
    assert list(asyncio.run(GateModels(tmp_path, trusted).read(placement))) == [VERSION]
    assert BundleCatalogue(tmp_path, trusted).describe(VERSION).model == VERSION


def test_a_shard_loads_what_is_signed_and_nothing_else(tmp_path: Path, key_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    build_models(root)
    model = next(iter(RELEASE.models()))
    path = root / model.model / model.version
    residency = Residency(trusted=(public_name(read_key(key_path)),))
    with pytest.raises(UntrustedBundle) as caught:
        residency.load(model, path)
    assert code_of(to_status(caught.value)).name == "FAILED_PRECONDITION"
    assert "only signed bundles" in residency.replicas()[0].error
    signed(path, key_path)
    assert residency.load(model, path).error == ""


def test_the_commands_make_keys_sign_and_verify(tmp_path: Path) -> None:
    workspace, key = tmp_path / "w", tmp_path / "release.pem"
    (workspace / "models").mkdir(parents=True)
    write_gate(workspace / "models")

    def told(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run(*arguments)

    made = told("keys", "make", str(key))
    assert made.stdout.split()[1:] == ["release"], made.stderr
    assert key.stat().st_mode & 0o777 == 0o600
    assert "File exists" in told("keys", "make", str(key)).stderr
    trusted = tmp_path / "trusted"
    trusted.write_text(f"# our releases\n{made.stdout}")
    in_workspace = ("--workspace", str(workspace))
    verify = ("bundle", "verify", "--trusted-keys", str(trusted), *in_workspace)
    assert "signature.json: is missing" in told(*verify).stderr
    done = told("bundle", "sign", "--key", str(key), *in_workspace)
    assert done.stdout == f"signed {VERSION}\n", done.stderr
    assert told(*verify).stdout == f"trusted {VERSION}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "has no key"), ("# none\n", "has no key"), ("abc", ":1: is no public key"), ("AAAA", "public key")],
)
def test_a_file_of_keys_that_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "trusted"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=problem):
        read_trusted_keys(path)
    with pytest.raises(InvalidInput, match="nowhere"):
        read_trusted_keys(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="as a private key"):
        read_key(path)
