"""What the controller reads of bundles before it lets anybody deploy them."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.bundle_catalogue import BundleCatalogue
from shards.errors import BundleError, CorruptBundle, InvalidInput, NotFound
from shards.gate_model import GATE_FILE
from shards.release import GateRules, ModelVersion, Release, Stage
from tests.shards.gates import VERSION, gate_model, write_gate

RELEASE = Release(surface="gifts", version="1", gate=GateRules(mode="before", model=VERSION), channels=())


def test_a_gate_is_checked_but_is_no_bundle_for_shards(tmp_path: Path) -> None:
    write_gate(tmp_path)
    assert BundleCatalogue(tmp_path).describe_release(RELEASE) == ()


def test_a_release_whose_gate_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gifts-gate@1"):
        BundleCatalogue(tmp_path).describe_release(RELEASE)


@pytest.mark.parametrize("name", [GATE_FILE, "golden.npz", "manifest.json"])
def test_a_release_whose_gate_is_corrupt_is_refused(tmp_path: Path, name: str) -> None:
    path = write_gate(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptBundle):
        BundleCatalogue(tmp_path).describe_release(RELEASE)


def test_a_release_whose_gate_is_another_model_is_refused(tmp_path: Path) -> None:
    write_gate(tmp_path, stage=Stage.RANKING)
    with pytest.raises(InvalidInput, match="but it serves ranking"):
        BundleCatalogue(tmp_path).describe_release(RELEASE)


def test_a_gate_that_stands_in_for_another_version_is_refused(tmp_path: Path) -> None:
    write_gate(tmp_path)
    (tmp_path / VERSION.model / VERSION.version).rename(tmp_path / VERSION.model / "2")
    newer = replace(RELEASE, gate=replace(RELEASE.gate, model=ModelVersion(VERSION.model, "2")))
    with pytest.raises(BundleError):
        BundleCatalogue(tmp_path).describe_release(newer)


def test_no_shard_is_asked_to_hold_a_gate(tmp_path: Path) -> None:
    write_gate(tmp_path, gate_model())
    with pytest.raises(InvalidInput, match="routers read it"):
        BundleCatalogue(tmp_path).describe_held(VERSION)
