"""`headrace doctor`: every fault is found, comes with advice, and makes the exit code 1."""

import json
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deploy.checkup import Finding
from deploy.release_files import write_release
from deploy.workspace import Workspace
from tests.deploy.commands import Ran, headrace
from tests.shards.bundles import RELEASE, build_models
from tests.training.shop_dataset import shop_dataset
from training.datasets import parquet


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose workspace holds small models of every engine; its own surface is not trained."""
    folder = tmp_path_factory.mktemp("doctor") / "shop"
    parquet.save(shop_dataset(), folder / "data")
    workspace = Workspace(folder / ".headrace")
    workspace.models_dir.mkdir(parents=True)
    build_models(workspace.models_dir)
    write_release(workspace, RELEASE)
    return folder


def told(folder: Path, cluster: str = "") -> Ran:
    (folder / "headrace.toml").write_text(f'surface = "shop"\n[cluster]\n{cluster}\n')
    return headrace("doctor", "--project", str(folder), "--json")


def bad(ran: Ran) -> dict[str, Finding]:
    found = [Finding(**finding) for finding in json.loads(ran.out)]
    broken = {finding.subject: finding for finding in found if finding.state == "broken"}
    assert ran.code == (1 if broken else 0)
    assert all(finding.advice for finding in broken.values())
    return broken


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_all_is_well(made: Path) -> None:
    ran = told(made, f"router_port = {free_port()}")
    assert bad(ran) == {}
    subjects = {finding["subject"] for finding in json.loads(ran.out)}
    assert {"python", "packages", "cores", "memory", "disk", "gpu", "ports", "ray"} <= subjects
    assert {"consul", "project", "data", "release", "users"} <= subjects


def test_everything_that_is_broken_is_found_at_once(made: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = (
            f'router_port = {port}\nray_address = "127.0.0.1:{free_port()}"\ndevice = "cuda"\n'
            f'consul_address = "127.0.0.1:{free_port()}"\nshard_memory_bytes = 1\n'
            f'user_store = "redis://127.0.0.1:{free_port()}"\ninsecure = true'
        )
        found = bad(told(made, settings))
    assert {"ports", "ray", "consul", "users"} <= found.keys()
    assert str(port) in found["ports"].found
    assert "cluster.router_port" in found["ports"].advice


def test_an_altered_bundle_and_broken_data_are_named(made: Path) -> None:
    bundle = next((made / ".headrace" / "models").glob("*/*/items.parquet"))
    whole, events = bundle.read_bytes(), made / "data" / "events.parquet"
    known = events.read_bytes()
    try:
        bundle.write_bytes(whole[:-1])
        pq.write_table(pq.read_table(events).drop_columns(["item_id"]), events)
        found = bad(told(made))
    finally:
        bundle.write_bytes(whole)
        events.write_bytes(known)
    assert "items.parquet" in found["bundles"].found
    assert found["data"].found == "events.item_id: is missing"


def test_a_file_that_cannot_be_read_is_named(made: Path) -> None:
    found = bad(told(made, "shrads = 3"))
    assert "cluster has an unknown field 'shrads'" in found["project"].found


def test_without_a_project_the_workspace_is_looked_at(tmp_path: Path) -> None:
    ran = headrace("doctor", "--workspace", str(tmp_path / "nothing"), "--json")
    assert bad(ran) == {}
    said = {finding["subject"]: finding for finding in json.loads(ran.out)}
    assert said["release"]["state"] == "note"
    assert "headrace train RECIPE" in said["release"]["advice"]
    assert not (tmp_path / "nothing").exists()


def test_the_table_shows_what_to_do(made: Path) -> None:
    (made / "headrace.toml").write_text('surface = "shop"\n[recipe]\nbase = "none"\n')
    ran = headrace("doctor", "--project", str(made))
    assert ran.code == 1
    assert "1 broken" in ran.out
    assert "→" in ran.out
