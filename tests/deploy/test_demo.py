"""`headrace demo` over small models in place of trained ones; training has tests of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.commands.demo import SEARCHES, SURFACE
from deploy.release_files import write_release
from deploy.workspace import Workspace
from tests.deploy.running_cluster import run
from tests.shards.bundles import RELEASE, build_models


@pytest.mark.cluster
def test_the_demo_prints_its_searches_and_stops(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.models_dir.mkdir()
    build_models(workspace.models_dir)
    write_release(workspace, replace(RELEASE, surface=SURFACE))
    done = run("demo", "--exit", "--workspace", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("READY router=")
    for query, user_id in SEARCHES:
        asked = f"“{query}”" if query else "browsing"
        assert f"{asked} on {SURFACE} for user {user_id}, release {RELEASE.version}" in done.stdout
    assert not workspace.claimed()


def test_the_demo_compares_two_users_and_lets_one_browse() -> None:
    (first_query, first_user), (second_query, second_user), (nothing, browser) = SEARCHES
    assert first_query == second_query != ""
    assert first_user != second_user
    assert nothing == ""
    assert browser


def test_the_demo_refuses_a_workspace_in_use_before_it_trains(tmp_path: Path) -> None:
    with Workspace(tmp_path).claim():
        done = run("demo", "--exit", "--workspace", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"headrace: a cluster runs in {tmp_path} already; `headrace down` stops it\n"
