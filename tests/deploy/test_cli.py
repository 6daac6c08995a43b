import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.settings import PROJECT_ROOT
from tests.deploy.running_cluster import run

COMMANDS = (
    *("demo", "up", "controller", "router", "down", "status", "search", "events", "members", "users"),
    *("train", "refresh", "update", "eval", "compare", "release", "models", "shards", "scale", "ops"),
)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['headrace', '--help']\n"
        "from deploy.cli import app\n"
        "try: app()\n"
        "finally: print([m for m in ('torch', 'ray', 'faiss', 'grpc', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"\b{command}\b", done.stdout) for command in COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"{command} [OPTIONS]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["status"], "no cluster runs in"),
        (["down"], "no cluster runs in"),
        (["shards", "list"], "no cluster runs in"),
        (["models", "list", "--json"], "no cluster runs in"),
        (["release", "list"], "no cluster runs in"),
        (["ops", "list"], "no cluster runs in"),
        (["scale", "--shards", "3"], "no cluster runs in"),
        (["shards", "drain", "shard-0"], "no cluster runs in"),
        (["release", "deploy", "no-such-file.json"], "no-such-file.json: cannot be read: No such file"),
        (["up", "--shards", "2", "--replicas", "3"], "settings: 3 replicas do not fit 2 shards"),
        (["up", "--shard-label", "disk=fast"], "shard-label: the cluster's own Ray has one node"),
        (["controller", "--shard-label", "fast"], "shard-label: "),
        (["controller", "--ray-address", "127.0.0.1:1", "--insecure"], "cannot join Ray at 127.0.0.1:1"),
        (["router", "--controller", "h:1", "--host", "0.0.0.0"], "settings: other hosts reach 0.0.0.0"),
        (["up", "--ray-address", "h:1"], "give --tls (see docs/access.md), or --insecure"),
        (["up", "--no-router-mtls"], "callers without certificates need --tls, and --access"),
        (["refresh", "shop"], "recipe: 'shop' is none of"),
        (["refresh", "movielens", "--until", "soon"], "until: 'soon' is no moment"),
        (["update", "shop"], "recipe: 'shop' is none of"),
        (["update", "movielens", "--until", "soon"], "until: 'soon' is no moment"),
        (["router"], "settings: a router follows --controller, --consul or both"),
        (["up", "--user-store", "http://h"], "settings: a user store is a folder, redis://"),
        (["up", "--user-store", "redis://:secret@h"], "settings: the password of a Redis is a secret"),
        (["up", "--user-store-ca", "ca.pem"], "settings: an authority's certificate is for"),
        (
            ["users", "load", "movielens", "--user-store", "redis://h/x"],
            "user-store: after redis://HOST:PORT/",
        ),
        (["events", "record"], "events: come from a file, or from --user, --item and --action"),
        (
            ["events", "record", "--user", "u", "--at", "noon", "--router", "127.0.0.1:1"],
            "at: Invalid isoformat",
        ),
        (["events", "record", "--user", "u", "--router", "127.0.0.1:1"], "UNAVAILABLE"),
        (["search", "x", "--router", "127.0.0.1:1", "--surface", "s"], "UNAVAILABLE"),
        (["shards", "list", "--controller", "127.0.0.1:1"], "failed to connect"),
    ],
)
def test_expected_errors_are_one_line_and_exit_code_1(
    tmp_path: Path, arguments: list[str], error: str
) -> None:
    done = run(*arguments, "--workspace", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("headrace: ")
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_commands_and_options_are_usage_errors() -> None:
    assert run("fly").returncode == 2
    assert run("up", "--fast").returncode == 2
    assert run("up", "--router-port", "70000").returncode == 2


def test_certificates_are_for_parties_that_there_are(tmp_path: Path) -> None:
    made = run("certs", "make", str(tmp_path / "c"), "--party", "client", "--host", "search.example")
    assert made.stdout == f"{tmp_path / 'c' / 'client.pem'}\n"
    refused = run("certs", "make", str(tmp_path / "c"), "--party", "root")
    assert "party: 'root' is none of router, controller" in refused.stderr
