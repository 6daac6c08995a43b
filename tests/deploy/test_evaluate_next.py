"""`headrace eval-next` of a release of a transformer and a table, leave-one-out."""

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from shards.release import Release
from tests.deploy.commands import Finished, headrace, headrace_process
from tests.deploy.small_cluster import serving
from tests.training.beauty_slice import rounds, small
from training.datasets import amazon_beauty
from training.evaluation.report import HYBRID
from training.trainer import ignore

CHANNELS = ["embedding", "successors", HYBRID]


@dataclass(frozen=True)
class Made:
    """A workspace, its release, and the folder of the data that it was trained on."""

    workspace: Path
    release: Release
    data_dir: Path

    def evaluated(self, *arguments: str) -> Any:
        """Return what the command says about the release, as JSON."""
        ran = headrace("eval-next", *self.folders, "--json", *arguments)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the options that name where all is."""
        return ("--workspace", str(self.workspace), "--data-dir", str(self.data_dir))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Users take twelve items round and round: who knows the last one knows the next."""
    root = tmp_path_factory.mktemp("beauty")
    folder = root / "data" / "amazon_beauty"
    folder.mkdir(parents=True)
    by_user: dict[str, list[str]] = {}
    for event in sorted(rounds().events.to_pylist(), key=lambda event: event["timestamp"]):
        by_user.setdefault(event["user_id"], []).append(event["item_id"])
    lines = (" ".join([user_id, *item_ids]) for user_id, item_ids in by_user.items())
    (folder / "sequences.txt").write_text("\n".join(lines))
    (folder / "item_attributes.json").write_text("{}")
    workspace = Workspace(root / "workspace")
    recipe = small("beauty_next", epochs=6)
    dataset = amazon_beauty.load(root / "data")
    trained = train_release(recipe, dataset, workspace, TrainingOptions(), ignore)
    return Made(workspace.root, trained.release, root / "data")


def test_every_channel_and_their_merge_are_measured_with_histories_and_without(made: Made) -> None:
    document = made.evaluated("--both")
    assert (document["dataset"], document["split"]) == ("amazon_beauty", "test")
    names = [name for note in ("", ", history kept", ", history excluded") for name in _noted(note)]
    assert list(document["rankings"]) == names
    as_released, without = (document["rankings"][HYBRID + note] for note in ("", ", history excluded"))
    assert as_released["users"] == 120
    assert as_released == document["rankings"][f"{HYBRID}, history kept"], "the release leaves nothing out"
    assert as_released["ndcg_10"] > 0.5
    assert without["ndcg_10"] > as_released["ndcg_10"] - 0.01


def _noted(note: str) -> list[str]:
    return [f"{name}{note}" for name in CHANNELS]


def test_a_sample_of_the_valid_users(made: Made) -> None:
    document = made.evaluated("--split", "valid", "--limit", "9")
    assert document["rankings"][HYBRID]["users"] == 9


def test_the_table_has_the_places_of_leave_one_out_and_other_libraries(made: Made) -> None:
    shown = headrace("eval-next", *made.folders).out
    for expected in ("amazon_beauty, test: 120 users", "R@5", "NDCG@10", "TIGER"):
        assert expected in shown
    assert "Recall@20" not in shown


def test_a_cluster_answers_as_one_process_does(made: Made) -> None:
    # A busy machine must not leave a channel out of an answer.
    patient = replace(made.release, retrieval_budget_ms=20_000)

    async def main() -> Finished:
        async with serving(made.workspace, patient) as router:
            options = ("--json", "--online", router, "--limit", "40")
            return await headrace_process("eval-next", *made.folders, *options)

    ran = asyncio.run(main())
    assert ran.exit_code == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["differing"] == 0
    assert document["rankings"][f"{HYBRID}, through the cluster"] == document["rankings"][HYBRID]
