import json
import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from deploy.workspace import Running, Workspace
from shards.errors import Conflict, Unavailable

RUNNING = Running(pid=7, router="127.0.0.1:1", controller="127.0.0.1:2", processes={"router-0": 8})


def test_nothing_runs_in_a_new_workspace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "none")
    assert not workspace.claimed()
    with pytest.raises(Unavailable, match=r"no cluster runs in .*none; `headrace up` starts one"):
        workspace.running()
    assert not workspace.root.exists()


def test_a_claim_is_exclusive_and_ends_with_its_block(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.claim():
        assert workspace.claimed()
        with pytest.raises(Conflict, match="a cluster runs in"), workspace.claim():
            pass
        workspace.note(RUNNING)
        assert workspace.running() == RUNNING
    assert not workspace.claimed()
    assert not (workspace.state_dir / "up.json").exists()
    with workspace.claim():
        pass


def test_a_refused_claim_leaves_the_holders_note(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.claim():
        workspace.note(RUNNING)
        with pytest.raises(Conflict), workspace.claim():
            pass
        assert workspace.claimant() == RUNNING


def test_a_cluster_without_addresses_is_only_starting(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.claim():
        with pytest.raises(Unavailable, match="only just starting"):
            workspace.running()
        workspace.note(Running(pid=7))
        assert workspace.claimant().pid == 7
        with pytest.raises(Unavailable, match="only just starting"):
            workspace.running()


def _hold(root: Path, holding: Event) -> None:
    with Workspace(root).claim():
        Workspace(root).note(RUNNING)
        holding.set()
        holding.wait(0)
        while True:
            multiprocessing.Event().wait()


def test_the_claim_of_a_killed_process_is_void(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, holding))
    holder.start()
    try:
        assert holding.wait(60)
        workspace = Workspace(tmp_path)
        assert workspace.running() == RUNNING
    finally:
        holder.kill()
        holder.join()
    # The note is still there, but nobody holds the lock.
    assert json.loads((workspace.state_dir / "up.json").read_text())["pid"] == 7
    with pytest.raises(Unavailable, match="no cluster runs"):
        workspace.running()
