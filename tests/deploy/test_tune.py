"""`headrace tune`: an index and a recipe are tuned by command, and a release is trained with the result."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from deploy.workspace import Workspace
from shards.bundle import open_bundle, read_manifest
from shards.errors import InvalidInput, NotFound
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.servable import open_servable
from tests.deploy.commands import headrace
from tests.deploy.small_cluster import shop
from tests.shards import bundles
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.datasets import parquet
from training.recipe import Searched, SearchSpace
from training.recipes import RECIPES


def test_an_index_is_tuned_and_written_as_another_version(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    bundles.write_two_tower(workspace.models_dir, bundles.seeded_words())
    data = shop()
    queries = data.queries.set_column(
        data.queries.column_names.index("split"), "split", pa.array(["valid"] * len(data.queries))
    )
    parquet.save(replace(data, queries=queries), tmp_path / "data")
    options = ("--dataset", str(tmp_path / "data"), "--workspace", str(tmp_path), "--k", "10")
    command = ("tune", "ann", "two_tower@1", *options, "--recall", "0.9", "--p99-ms", "1000", "--json")
    done = headrace(*command, "--trials", "5")
    assert done.code == 0, done.error
    document = json.loads(done.out)
    assert document["model"] == "two_tower@1-ann"
    assert document["choice"]["recall"] >= 0.9
    assert len(document["tried"]) == 5
    tuned = open_bundle(workspace.models_dir / "two_tower" / "1-ann")
    assert tuned.manifest.params["index"] == document["choice"]["factory"]
    assert tuned.manifest.metrics["ann_recall"] == document["choice"]["recall"]
    replay(open_servable(tuned, "cpu"), read_golden(tuned.file(GOLDEN_FILE)), 1e-4, 1e-5)
    more = headrace(*command, "--trials", "7", "--as", "other")
    assert json.loads(more.out)["tried"][:5] == document["tried"]
    for problem, asked in {
        "lexical@1": (*command[:2], "two_tower", *command[3:]),
        "recall": (*command, "--recall", "2"),
    }.items():
        refused = headrace(*asked)
        assert isinstance(refused.error, InvalidInput), problem


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small recipe that declares a space, beside those that come with Headrace."""
    space = SearchSpace(settings=(Searched(path="two_tower.fit.learning_rate", low=1e-3, high=3e-2),))
    recipe = replace(RECIPE, search=space).embedding_alone()
    monkeypatch.setitem(RECIPES, "shop", recipe)


@pytest.mark.usefixtures("searching")
def test_a_recipe_is_tuned_and_trained_with_what_was_found(tmp_path: Path) -> None:
    parquet.save(shop_dataset(), tmp_path / "data")
    here = ("--dataset", str(tmp_path / "data"), "--workspace", str(tmp_path / "workspace"))
    early = headrace("train", "shop", "--tuned", *here)
    assert isinstance(early.error, NotFound)
    tuned = headrace(
        "tune", "recipe", "shop", "--trials", "2", "--set", "two_tower.fit.epochs=2", "--json", *here
    )
    assert tuned.code == 0, tuned.error
    best = json.loads(tuned.out)
    assert (best["recipe"], best["trials"], best["settings"][0]) == ("shop", 2, "two_tower.fit.epochs=2")
    trained = headrace("train", "shop", "--tuned", "--set", "two_tower.negatives=8", *here)
    assert trained.code == 0, trained.error
    surface, version = trained.out.split()
    manifest = read_manifest(Workspace(tmp_path / "workspace").models_dir / f"{surface}-embedding" / version)
    assert manifest.settings == (*best["settings"], "two_tower.negatives=8")
