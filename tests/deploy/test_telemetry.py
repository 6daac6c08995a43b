import json
import socket
from pathlib import Path

import pytest

from deploy.settings import ClusterSettings
from deploy.telemetry import process_telemetry, telemetry
from services.shard_config import ShardConfig
from services.shard_process import command, config_of
from services.telemetry_settings import CONTROLLER, ROUTER, LogSettings, Telemetry, TraceSettings
from shards.errors import InvalidInput


def settings_with(folder: Path, document: object, **others: object) -> ClusterSettings:
    path = folder / "telemetry.json"
    path.write_text(json.dumps(document))
    return ClusterSettings(workspace=str(folder), telemetry_path=str(path), **others)  # type: ignore[arg-type]


def test_without_a_file_there_are_metrics_on_loopback_and_no_traces(tmp_path: Path) -> None:
    found = telemetry(ClusterSettings(workspace=str(tmp_path)))
    assert found == Telemetry()
    assert (found.metrics.on, found.metrics.host, found.metrics.port(ROUTER, 3)) == (True, "127.0.0.1", 0)
    assert not found.traces.on
    assert (found.logs.as_json, found.logs.personal) == (False, False)


def test_a_file_names_only_what_differs(tmp_path: Path) -> None:
    document = {"traces": {"folder": "/t", "ratio": 1}, "logs": {"as_json": True}}
    found = telemetry(settings_with(tmp_path, document))
    assert found.traces == TraceSettings(folder="/t", ratio=1.0)
    assert found.logs == LogSettings(as_json=True)
    assert found.metrics == Telemetry().metrics


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"trace": {}}, "unknown field 'trace'"),
        ({"traces": {"ratio": 2}}, "ratio must be 0 to 1"),
        ({"traces": {"endpoint": "localhost:4318"}}, "endpoint must begin with http"),
        ({"metrics": {"router_port": 70_000}}, "a port must be 0 to 65535"),
        ({"logs": {"share": -0.5}}, "share must be 0 to 1"),
        ({"logs": {"slow_ms": -1}}, "slow_ms and most_per_s must not be negative"),
        ([], "is not an object"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, document: object, problem: str) -> None:
    with pytest.raises(InvalidInput, match=rf"telemetry\.json: .*{problem}"):
        telemetry(settings_with(tmp_path, document))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        telemetry(ClusterSettings(workspace="w", telemetry_path=str(tmp_path / "nowhere.json")))


def test_processes_of_one_role_count_their_ports_on(tmp_path: Path) -> None:
    document = {"metrics": {"router_port": 9100, "controller_port": 9090}}
    ports = {
        name: process_telemetry(settings_with(tmp_path, document, process=name), role).port
        for name, role in (("router-0", ROUTER), ("router-2", ROUTER), ("controller", CONTROLLER))
    }
    assert ports == {"router-0": 9100, "router-2": 9102, "controller": 9090}


def test_a_process_without_a_supervisor_is_named_after_its_host_and_port(tmp_path: Path) -> None:
    document = {"metrics": {"router_port": 9100}}
    found = process_telemetry(settings_with(tmp_path, document, router_port=50051), ROUTER)
    assert found.name == f"router.{socket.gethostname()}.50051"
    assert found.port == 9100


def test_a_shards_settings_survive_the_way_to_its_process(tmp_path: Path) -> None:
    told = Telemetry(traces=TraceSettings(folder="/t"), logs=LogSettings(as_json=True, share=0.5))
    config = ShardConfig(shard_id="shard-1", state_dir=tmp_path, telemetry=told)
    assert config_of(command(config)[-1]) == config
