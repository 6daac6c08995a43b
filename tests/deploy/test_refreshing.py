"""A trained release as of a later moment: newer tables and statistics beside the same models."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deploy.refreshing import refresh_release, run_of
from deploy.release_files import read_release
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from shards.bundle import Bundle, open_bundle
from shards.errors import InvalidInput
from shards.forward_index import ITEMS_FILE
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.lookup_table import TABLE_FILE
from shards.release import ModelVersion, Release
from shards.servable import open_servable
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.datasets.splits import known_until_ms
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.recipe import Recipe
from training.snapshot import snapshot
from training.trainer import ignore

SETTINGS = ("two_tower.fit.epochs=1", "ranker.training.fit.epochs=1", "merged=30")
DATA = shop_dataset()
TRAINED_MS = known_until_ms(DATA)
LATER_MS = TRAINED_MS + 3 * DAY_MS


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    options = TrainingOptions(seed=1, settings=SETTINGS)
    train_release(with_overrides(RECIPE, SETTINGS), DATA, workspace, options, ignore)
    return workspace


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Release:
    return read_release(workspace, "shop")


@pytest.fixture(scope="module")
def refreshed(workspace: Workspace, trained: Release) -> Release:
    assert trained.as_of_ms == TRAINED_MS
    return refresh(workspace, RECIPE, LATER_MS, "later")


def refresh(
    workspace: Workspace, recipe: Recipe, now_ms: int, version: str = "", *, data: Dataset = DATA
) -> Release:
    release = read_release(workspace, "shop")
    return refresh_release(
        run_of(recipe, data, release, workspace), release, workspace, now_ms, version=version
    )


def opened(workspace: Workspace, model: ModelVersion) -> Bundle:
    return open_bundle(workspace.models_dir / model.model / model.version, expect=model)


def digests(bundle: Bundle) -> dict[str, str]:
    return {name: digest.sha256 for name, digest in bundle.manifest.files.items()}


def test_every_bundle_is_another_version_and_answers_its_goldens(
    workspace: Workspace, trained: Release, refreshed: Release
) -> None:
    assert refreshed.as_of_ms == LATER_MS
    assert {model.model for model in refreshed.models()} == {model.model for model in trained.models()}
    assert {model.version for model in refreshed.models()} == {refreshed.version} == {"later"}
    for model in refreshed.models():
        bundle = opened(workspace, model)
        golden, tolerance = read_golden(bundle.file(GOLDEN_FILE)), bundle.manifest.tolerance
        replay(open_servable(bundle, "cpu"), golden, tolerance.rtol, tolerance.atol)
        assert bundle.manifest.settings == SETTINGS
    assert refreshed.merged == trained.merged == 30
    assert refreshed.gate == trained.gate
    assert refreshed.task_exponents == trained.task_exponents


def test_models_are_as_trained_and_read_newer_statistics(
    workspace: Workspace, trained: Release, refreshed: Release
) -> None:
    known = snapshot(DATA, LATER_MS).items
    assert trained.ranker is not None
    assert refreshed.ranker is not None
    embedded = [next(c.model for c in r.channels if c.name == "embedding") for r in (trained, refreshed)]
    for before, after in (embedded, (trained.ranker.model, refreshed.ranker.model)):
        old, new = opened(workspace, before), opened(workspace, after)
        changed = {name for name, digest in digests(new).items() if digests(old)[name] != digest}
        assert changed <= {ITEMS_FILE, GOLDEN_FILE}
        assert ITEMS_FILE in changed
        assert pq.read_table(new.file(ITEMS_FILE)).equals(known)


def test_tables_know_what_came_since(workspace: Workspace, trained: Release, refreshed: Release) -> None:
    tables = {}
    for release in (trained, refreshed):
        model = next(c.model for c in release.channels if c.name == "popular")
        tables[release.version] = pq.read_table(opened(workspace, model).file(TABLE_FILE))
    assert not tables[trained.version].equals(tables["later"])


def test_a_moment_before_the_release_and_a_version_that_exists_are_refused(
    workspace: Workspace, refreshed: Release
) -> None:
    with pytest.raises(InvalidInput, match="until: is before the moment"):
        refresh(workspace, RECIPE, TRAINED_MS - 1, "again")
    with pytest.raises(InvalidInput, match=r"version: .* already"):
        refresh(workspace, RECIPE, LATER_MS, refreshed.version)
    fewer = replace(RECIPE, channels=RECIPE.channels[:-1])
    with pytest.raises(InvalidInput, match="recipe: has the channels"):
        refresh(workspace, fewer, LATER_MS, "again")


def test_without_a_version_what_is_there_already_is_used(workspace: Workspace) -> None:
    first = refresh(workspace, RECIPE, LATER_MS)
    model = first.channels[0].model
    written_ns = opened(workspace, model).path.stat().st_mtime_ns
    assert refresh(workspace, RECIPE, LATER_MS) == first
    assert opened(workspace, model).path.stat().st_mtime_ns == written_ns
    assert refresh(workspace, RECIPE, LATER_MS + DAY_MS).version != first.version


def test_an_item_that_the_data_lost_is_named(tmp_path: Path) -> None:
    lexical = Recipe(name="shop", surface="shop", channels=RECIPE.channels[:2], features=RECIPE.features)
    workspace = Workspace(tmp_path)
    settings = ("two_tower.fit.epochs=1", "two_tower.negatives=16", "ranking_days=30")
    options = TrainingOptions(settings=settings)
    train_release(with_overrides(lexical, settings), DATA, workspace, options, ignore)
    fewer = replace(DATA, items=DATA.items.slice(1))
    with pytest.raises(InvalidInput, match="dataset: has no item 'rmu0'"):
        refresh(workspace, lexical, LATER_MS, "again", data=fewer)
