import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.commands.simulate import simulate_command
from deploy.recorded_load import read_load
from deploy.simulated_cluster import running_cluster
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import types_pb2
from shards.errors import InvalidInput
from shards.placement import Placement
from shards.release import ModelVersion
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.shards.bundles import RELEASE, build_models

DESCRIBED = ("--shards", "3", "--models", "20", "--rounds", "4")

app = typer.Typer()
app.command()(simulate_command)


def simulated(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*DESCRIBED, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_described_cluster_is_simulated_for_scripts() -> None:
    told = json.loads(simulated("--json"))
    assert [figures["number"] for figures in told["rounds"]] == [0, 1, 2, 3]
    assert len(told["rounds"][0]["shards"]) == 3
    assert told["total"]["requests"] == pytest.approx(4 * 60 * 1000)
    assert told["total"]["unanswered"] == 0


def test_people_get_a_table() -> None:
    assert "busiest" in simulated()


@pytest.mark.parametrize("name", ["plan.svg", "plan.png"])
def test_a_picture_is_drawn(tmp_path: Path, name: str) -> None:
    simulated("--picture", str(tmp_path / name))
    head = (tmp_path / name).read_bytes()[:8]
    assert head.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_a_recorded_load_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    rows = [{"time": 60 * n, "model": "model-0001", "requests": 600} for n in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = json.loads(simulated("--load", str(path), "--json"))
    assert [figures["requests"] for figures in told["rounds"]] == [600.0, 600.0]


def test_half_a_description_is_refused() -> None:
    with pytest.raises(InvalidInput, match="only together"):
        CliRunner().invoke(app, ["--shards", "3"], catch_exceptions=False)


def test_a_csv_names_models_with_or_without_version(tmp_path: Path) -> None:
    old, new = ModelVersion("a", "1"), ModelVersion("a", "2")
    path = tmp_path / "load.csv"
    path.write_text("time,model,requests\n1.5,a,4\n2,a@2,\n")
    assert list(read_load(path, [old, new])) == [(1.5, old, 2.0), (1.5, new, 2.0), (2.0, new, 1.0)]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("1,nobody,2", "there is no model 'nobody'"),
        ("soon,a,2", "could not convert"),
        ("1,a,-2", "must not be below 0"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "load.csv"
    path.write_text(f"time,model,requests\n0,a,1\n{line}\n")
    with pytest.raises(InvalidInput, match=f"row 2: .*{wrong}"):
        list(read_load(path, [ModelVersion("a", "1")]))


def test_a_running_cluster_begins_as_it_is() -> None:
    cluster = running_cluster(
        [
            pb.Shard(shard_id="s0", address="h:1", capacity_bytes=100, state=pb.SHARD_STATE_SERVING),
            pb.Shard(shard_id="s1", address="h:2", capacity_bytes=100, state=pb.SHARD_STATE_DRAINED),
        ],
        [
            pb.Model(
                model=types_pb2.ModelVersion(model="a", version="1"), size_bytes=7, shard_ids=["s1", "s0"]
            ),
            pb.Model(model=types_pb2.ModelVersion(model="unused", version="1"), size_bytes=7),
        ],
        Placement(generation=1),
    )
    assert [(s.shard_id, s.node, s.drained) for s in cluster.shards] == [
        ("s0", "h", False),
        ("s1", "h", True),
    ]
    assert [(m.model.model, m.memory_bytes) for m in cluster.models] == [("a", 7)]
    assert cluster.placement == {ModelVersion("a", "1"): ("s0", "s1")}


def test_a_running_cluster_is_simulated_as_its_controller_tells(tmp_path: Path) -> None:
    build_models(tmp_path / "models")

    async def run() -> str:
        async with (
            in_process_shards(tmp_path / "state") as shards,
            running_controller(tmp_path, shards) as controller,
        ):
            operation = await controller.deploy(RELEASE)
            assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
            options = ["--controller", controller.address, "--rounds", "3", "--json"]
            result = await asyncio.to_thread(CliRunner().invoke, app, options, catch_exceptions=False)
            return result.output

    told = json.loads(asyncio.run(run()))
    assert [s["shard_id"] for s in told["rounds"][0]["shards"]] == ["shard-0", "shard-1"]
    assert all(s["memory_bytes"] > 0 for s in told["rounds"][0]["shards"])
    assert (told["total"]["moves"], told["total"]["unanswered"]) == (0, 0)
