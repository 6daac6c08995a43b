"""`deploy/compose.yaml` and what it mounts, as far as they can be checked without Docker."""

import json
import re
import subprocess
from typing import Any

import yaml
from compose_spec import PyCompose

from deploy.settings import PROJECT_ROOT
from tests.deploy.dashboard import DASHBOARD
from tests.deploy.manifests import DOCKERFILE
from tests.deploy.prometheus_server import CONFIGURATION, PROMETHEUS
from tests.docs.command_line import problem_of

COMPOSE = PROJECT_ROOT / "deploy" / "compose.yaml"
PROVISIONING = PROJECT_ROOT / "deploy" / "grafana" / "provisioning"
# As Compose fills it in where the environment names nothing.
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
WORKSPACE = "../.headrace"


def mounts(service: str) -> dict[str, str]:
    """Return the sources of a service's mounts by where they are in it."""
    parts = [mount.split(":") for mount in SERVICES[service]["volumes"]]
    return {target: source for source, target, *_ in parts}


def test_it_is_a_compose_file() -> None:
    parsed = PyCompose.from_json(json.dumps(yaml.safe_load(TEXT)))
    parsed.validate()
    assert parsed.service_names() == list(SERVICES)


def test_its_headrace_commands_are_taken() -> None:
    cluster = SERVICES["cluster"]
    for program, *arguments in (cluster["command"], cluster["healthcheck"]["test"][1:]):
        assert program == "headrace"
        assert not problem_of(arguments)


def test_everything_listens_on_loopback_without_rights() -> None:
    for name, service in SERVICES.items():
        assert service["network_mode"] == "host", name
        assert not service.get("ports")
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "an image without a version"
    assert not any(word.startswith("--host") for word in SERVICES["cluster"]["command"])
    listens = [word for word in SERVICES["prometheus"]["command"] if "listen" in word]
    assert [word.partition("=")[2].partition(":")[0] for word in listens] == ["127.0.0.1"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_it_builds_and_mounts_what_exists() -> None:
    build = SERVICES["cluster"]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context / build["dockerfile"] == DOCKERFILE
    assert f"-t {SERVICES['cluster']['image']} ." in DOCKERFILE.read_text()
    for name in SERVICES:
        for source in mounts(name).values():
            assert source == WORKSPACE or (COMPOSE.parent / source).exists(), source


def test_prometheus_finds_its_settings_and_the_notes_of_processes() -> None:
    given = dict(word.split("=", 1) for word in SERVICES["prometheus"]["command"])
    program = str(PROMETHEUS.program())
    known = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert all(f"{flag}=" in known.stdout + known.stderr for flag in given)
    inside = mounts("prometheus")
    folder, _, name = given["--config.file"].rpartition("/")
    assert (COMPOSE.parent / inside[folder]).resolve() == CONFIGURATION
    (job,) = yaml.safe_load((CONFIGURATION / name).read_text())["scrape_configs"]
    (notes,) = job["file_sd_configs"][0]["files"]
    # The cluster writes them to state/metrics of its workspace, which is one folder for both.
    (workspace,) = (target for target, source in inside.items() if source == WORKSPACE)
    assert notes == f"{workspace}/state/metrics/*.json"
    assert mounts("cluster")["/workspace"] == WORKSPACE


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    inside = mounts("grafana")
    assert (COMPOSE.parent / inside["/etc/grafana/provisioning"]).resolve() == PROVISIONING
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (listens,) = (w for w in SERVICES["prometheus"]["command"] if w.startswith("--web.listen-address="))
    assert source["url"] == f"http://{listens.partition('=')[2]}"
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "headrace.yaml").read_text())["providers"]
    at = f"{provider['options']['path']}/{DASHBOARD.name}"
    assert (COMPOSE.parent / inside[at]).resolve() == DASHBOARD
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == at
