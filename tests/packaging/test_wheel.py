"""The wheel holds all that runs and nothing else; `make check-dist` installs it."""

import configparser
import re
from email.parser import Parser

import pytest

from tests.packaging.archives import PACKAGES, build, contents, copied_to, the_one, tracked

NOT_IN_IT = ("Dockerfile", ".hcl", ".yaml", ".yml", ".md")
"""Files beside the packages that are for whoever deploys from a clone; `protos/buf.yaml` is the exception."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation: it needs no network.
    build(copied_to(folder / "source"), folder, "--wheel", "--no-isolation")
    return contents(the_one(folder, "*.whl"))


def test_it_holds_every_module_and_everything_that_modules_read(wheel: dict[str, bytes]) -> None:
    wanted = {
        str(path)
        for path in tracked()
        if path.parts[0] in PACKAGES and (path.suffix == ".py" or not path.name.endswith(NOT_IN_IT))
    }
    # The dashboard is Grafana's to read.
    wanted -= {"deploy/grafana/headrace.json"}
    assert wanted <= wheel.keys()
    assert {name for name in wheel if ".dist-info/" not in name} - wanted <= {"protos/buf.yaml"}


def test_it_says_what_it_needs_and_what_it_runs(wheel: dict[str, bytes]) -> None:
    (metadata,) = (Parser().parsestr(wheel[name].decode()) for name in wheel if name.endswith("/METADATA"))
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split("[<>=]", line)[0] for line in needed} == {"grpcio", "grpcio-status", "protobuf"}
    extras = set(metadata.get_all("Provides-Extra", []))
    assert {"serving", "cluster", "gpu", "training", "telemetry"} <= extras
    (scripts,) = (wheel[name].decode() for name in wheel if name.endswith("/entry_points.txt"))
    parsed = configparser.ConfigParser()
    parsed.read_string(scripts)
    assert dict(parsed["console_scripts"]) == {"headrace": "deploy.cli:app"}
