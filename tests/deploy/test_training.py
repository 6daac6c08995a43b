"""Training into a workspace: all of it appears, or none."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from deploy.release_files import read_release
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from services.lmdb_user_store import LmdbUserStore
from shards.bundle import open_bundle
from shards.errors import InvalidInput
from shards.golden import GOLDEN_FILE, read_golden
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.overrides import with_overrides
from training.recipe import Recipe
from training.trainer import Advanced, EpochEnded, PhaseStarted, ignore

QUICK = with_overrides(RECIPE, ["two_tower.fit.epochs=1", "ranker.training.fit.epochs=1"])


TABLES = Recipe(
    name="shop", surface="shop", channels=tuple(c for c in RECIPE.channels if c.source != "two_tower")
)
"""Nothing to train, for what is not about training."""

Event = PhaseStarted | Advanced | EpochEnded


class Broken(Exception):
    """Stands for whatever ends a run."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    train_release(QUICK, shop_dataset(), workspace, TrainingOptions(seed=1), ignore)
    return workspace


def bundles(workspace: Workspace) -> dict[str, bytes]:
    return {
        str(path.parent.relative_to(workspace.models_dir)): path.read_bytes()
        for path in workspace.models_dir.glob("*/*/manifest.json")
    }


def test_a_release_with_bundles_and_users_is_there(workspace: Workspace) -> None:
    release = read_release(workspace, "shop")
    assert release.gate.model is not None
    models = {*release.models(), release.gate.model}
    for model in models:
        open_bundle(workspace.models_dir / model.model / model.version, expect=model)
    assert {path.name for path in workspace.models_dir.iterdir()} == {m.model for m in models}
    assert release.as_of_ms is not None
    with LmdbUserStore.open(workspace.users_path) as users:
        user = asyncio.run(users.get("u1", release.as_of_ms, 5))
    assert user.features["country"] == "uk"
    assert len(user.history.item_ids) == 5


def test_the_same_version_is_refused_unless_it_shall_be_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    train_release(TABLES, shop_dataset(), workspace, TrainingOptions(seed=1), ignore)
    before = bundles(workspace)
    with pytest.raises(InvalidInput, match="already"):
        train_release(TABLES, shop_dataset(), workspace, TrainingOptions(seed=1), ignore)
    assert bundles(workspace) == before
    train_release(TABLES, shop_dataset(), workspace, TrainingOptions(seed=1, replace=True), ignore)
    assert bundles(workspace).keys() == before.keys()


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    broken = with_overrides(QUICK, ["ranking_days=1000"])
    with pytest.raises(ValueError, match="both sides"):
        train_release(broken, shop_dataset(), workspace, TrainingOptions(version="1"), ignore)
    assert list(workspace.models_dir.iterdir()) == []
    assert not workspace.users_path.exists()


def test_a_run_broken_off_goes_on_and_ends_with_equal_bundles(workspace: Workspace, tmp_path: Path) -> None:
    def break_off(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase.startswith("ranker"):
            raise Broken

    heard: list[Event] = []
    again = Workspace(tmp_path)
    with pytest.raises(Broken):
        train_release(QUICK, shop_dataset(), again, TrainingOptions(seed=1), break_off)
    trained = train_release(QUICK, shop_dataset(), again, TrainingOptions(seed=1, resume=True), heard.append)
    trained_again = dict.fromkeys(event.model for event in heard if isinstance(event, EpochEnded))
    assert list(trained_again) == ["ranker", "gate before", "gate after", "two_tower"]
    (run,) = again.training_dir.iterdir()
    assert {path.name for path in run.iterdir()} == {"metrics.csv", "phases.csv"}
    models = [row.split(",")[0] for row in (run / "metrics.csv").read_text().splitlines()]
    assert list(dict.fromkeys(models)) == [
        "model",
        "two_tower",
        "pre_ranker",
        "ranker",
        "gate before",
        "gate after",
    ]
    for model in trained.release.models():
        left, right = (
            read_golden(w.models_dir / model.model / model.version / GOLDEN_FILE) for w in (workspace, again)
        )
        assert left.item_ids == right.item_ids
        assert all(
            np.array_equal(ours[name], theirs[name])
            for ours, theirs in zip(left.scores, right.scores, strict=True)
            for name in ours
        )


def test_a_version_can_be_named(workspace: Workspace, tmp_path: Path) -> None:
    trained = train_release(
        TABLES, shop_dataset(), Workspace(tmp_path), TrainingOptions(seed=1, version="first"), ignore
    )
    assert trained.release.version == "first" != read_release(workspace, "shop").version
