"""Documents followed to the letter: their commands and programs, in order, on one real cluster."""

import contextlib
import io
import json
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from pathlib import Path

import pytest

from tests.deploy.commands import headrace
from tests.deploy.running_cluster import RunningCluster
from tests.docs.documents import DOCUMENTS, Block, arguments_of, blocks
from tests.docs.followed_cluster import NAMES, SHARDS, followed_cluster

FOLLOWED = (
    "docs/clients.md",
    "docs/explain.md",
    "docs/operations.md",
    "docs/residency.md",
    "docs/tutorial.md",
)
"""In this order; the last one stops the cluster."""

ONLY_READ = {
    "README.md": "the demo and what follows from it is in the tutorial",
    "docs/access.md": "a cluster with rules of its own: tests/deploy/test_cluster_access.py",
    "docs/catalogues.md": "trains for minutes",
    "docs/channels.md": "trains for minutes",
    "docs/console.md": "opens in a browser: tests/deploy/console",
    "docs/consul.md": "needs an agent: tests/deploy/test_consul.py",
    "docs/data.md": "needs tables of one's own: tests/training",
    "docs/deployment.md": "needs hosts, Docker or Kubernetes",
    "docs/diversity.md": "trains for minutes",
    "docs/live-quality.md": "needs what users did with the answers of several releases",
    "docs/own-data.md": "trains: tests/docs/test_own_data.py follows it",
    "docs/partitions.md": "needs a model of a size that is worth it: tests/deploy/test_split.py",
    "docs/planning.md": "simulates for a minute: tests/deploy/test_simulate.py",
    "docs/tuning.md": "trains for minutes",
    "docs/users.md": "needs users of a shop: tests/deploy/test_events.py",
    "training/README.md": "trains for hours",
}
"""Documents whose commands are only checked against the command line, and why."""

SKIPPED = {
    "refresh": "needs the data of a trained release: tests/deploy/test_refreshing.py",
    "update": "trains: tests/deploy/test_update.py",
    "retrain": "trains: tests/deploy/test_retrain.py",
    "release deploy .headrace/": "what refresh and update wrote",
    "scale --shards 4 --gpu-fraction": "needs a GPU",
    "shards restart": "a minute: tests/deploy/test_operated_cluster.py",
    "scale --shards 4": "two more shards: tests/deploy/test_operated_cluster.py",
}
"""Beginnings of commands that are not run in the documents that are followed, and why."""

REFUSED = {"models load broken@1": "items.parquet"}
"""Beginnings of commands that a document says are refused, and a word of the reason."""


def test_every_document_with_commands_is_followed_or_has_a_reason_not_to_be() -> None:
    telling = {block.name for block in blocks() if block.language == "python" or any(_arguments(block))}
    assert telling <= {*FOLLOWED, *ONLY_READ}
    assert {*FOLLOWED, *ONLY_READ} <= telling
    assert len(DOCUMENTS) > len(telling)


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_documents_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path / "w"))
    with followed_cluster(tmp_path / "w", tmp_path) as cluster:
        done = headrace("release", "alias", "movielens", "shop")
        assert done.code == 0, done
        for name in FOLLOWED:
            for block in blocks():
                if block.name == name:
                    _follow(block, cluster)
        assert cluster.process.wait(60) == 0


def _arguments(block: Block) -> list[list[str]]:
    return [arguments for line in block.lines() for arguments in arguments_of("headrace", line)]


def _follow(block: Block, cluster: RunningCluster) -> None:
    if block.language == "python":
        _run_program(block, cluster)
    for arguments in _arguments(block):
        text = " ".join(arguments)
        if any(text.startswith(beginning) for beginning in SKIPPED):
            continue
        done = headrace(*_as_placed(arguments))
        reason = next((word for beginning, word in REFUSED.items() if text.startswith(beginning)), None)
        said = f"{block.at}: headrace {text}: {done}"
        assert (done.code != 0) == (reason is not None), said
        assert reason is None or reason in f"{done.error}", said


def _as_placed(arguments: list[str]) -> list[str]:
    """Return a command that moves a bundle with shards between which it can be moved."""
    if arguments[:2] != ["shards", "move"]:
        return arguments
    shown = json.loads(headrace("models", "show", arguments[2], "--json").out)
    holders = [replica["shardId"] for replica in shown["replicas"]]
    others = [f"shard-{number}" for number in range(SHARDS) if f"shard-{number}" not in holders]
    return [*arguments[:3], holders[0], others[0]]


def _run_program(block: Block, cluster: RunningCluster) -> None:
    text = block.text.replace("127.0.0.1:50051", cluster.router).replace(
        "127.0.0.1:50052", cluster.controller
    )
    for name, own in NAMES.items():
        text = text.replace(name, own)
    program = compile(text, block.at, "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {"__name__": "__main__"})
    assert printed.getvalue().strip(), f"{block.at} prints nothing"
    assert "StatusCode" not in printed.getvalue(), f"{block.at}: {printed.getvalue()}"
