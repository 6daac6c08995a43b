"""Projects: a folder with `headrace.toml`, made whole or not at all, and what its file may say."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.project import Project, project_of, read_project
from deploy.project_preparing import with_project
from deploy.project_recipe import project_recipe
from deploy.project_training import changes_since_training, note_training
from deploy.settings import ClusterSettings
from deploy.workspace import Workspace
from shards.errors import Conflict, InvalidInput, Unavailable
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.deploy.commands import headrace
from tests.training.shop_dataset import shop_dataset
from training.datasets import parquet
from training.datasets.splits import split_of
from training.datasets.tables import timestamps_ms
from training.run import Run

RELEASE = Release(
    surface="my-shop",
    version="v1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("my-shop-lexical", "v1"), k=10, quota=5),),
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Items and purchases of a shop, as files."""
    shop = shop_dataset()
    pq.write_table(shop.items, tmp_path / "items.parquet")
    pq.write_table(shop.events, tmp_path / "events.parquet")
    return tmp_path


def init(tables: Path, *more: str) -> Path:
    folder = tables / "my-shop"
    files = (f"--{name}={tables / name}.parquet" for name in ("items", "events"))
    done = headrace("init", str(folder), *files, *more)
    if done.error:
        raise done.error
    return folder


def changed(folder: Path, old: str, new: str) -> Project:
    path = folder / "headrace.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return read_project(folder)


def test_a_project_is_read_back_as_it_was_made(tables: Path) -> None:
    folder = init(tables)
    project = read_project(folder)
    assert project.surface == "my-shop"
    recipe = project_recipe(project)
    assert recipe.surface == "my-shop"
    assert [channel.name for channel in recipe.channels][:2] == ["lexical", "embedding"]
    assert parquet.load(project.data_dir).queries_are_proxies
    assert project_of(Workspace(folder / ".headrace")) == project
    assert project_of(Workspace(tables)) is None


def test_nothing_is_left_of_tables_with_problems(tables: Path) -> None:
    events = pq.read_table(tables / "events.parquet")
    pq.write_table(events.set_column(1, "user_id", pa.array([""] * len(events))), tables / "events.parquet")
    before = sorted(tables.iterdir())
    with pytest.raises(InvalidInput, match=r"events.user_id: is empty in 900 rows, the first is row 0"):
        init(tables)
    assert sorted(tables.iterdir()) == before


def test_a_folder_that_holds_something_is_left_alone(tables: Path) -> None:
    (tables / "my-shop").mkdir()
    (tables / "my-shop" / "notes.txt").write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        init(tables)
    assert [path.name for path in (tables / "my-shop").iterdir()] == ["notes.txt"]


def test_tables_are_read_again_as_the_file_says(tables: Path) -> None:
    folder = init(tables)
    note_training(read_project(folder), RELEASE)
    assert changes_since_training(read_project(folder)) == ()
    events = pq.read_table(tables / "events.parquet")
    pq.write_table(events.slice(0, 600).rename_columns({"user_id": "who"}), tables / "events.parquet")
    refused = headrace("init", str(folder))
    assert "events.user_id: is missing" in str(refused.error)
    changed(folder, "[features]", '[data.columns.events]\nuser_id = "who"\n\n[features]')
    assert headrace("init", str(folder)).code == 0
    assert len(parquet.load(folder / "data").events) == 600
    told = "\n".join(changes_since_training(read_project(folder)))
    assert "events.parquet is another" in told
    assert 'data.columns.events.user_id was not set and is "who"' in told


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("shards = 2", "shrads = 2", "cluster has an unknown field 'shrads'"),
        ("shards = 2", 'shards = "2"', "cluster.shards is not a int"),
        ("shards = 2", "shards = 0", "2 replicas do not fit 0 shards"),
        ("shards = 2", 'workspace = "x"', "cluster.workspace follows from how the cluster is started"),
        ("[gate]", "[gates]", "has an unknown field 'gates'"),
        ('mode = "before"', "modus = 1", "gate has an unknown field 'modus'"),
        ('mode = "before"', 'mode = "now"', "gate.mode must be one of rules, always"),
        ("valid_share = 0.1", "valid_share = 1.0", "valid_share and test_share must be positive"),
        ("[data]", "[data", "line"),
        ('surface = "my-shop"', 'surface = ""', "surface must not be empty"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tables: Path, old: str, new: str, problem: str) -> None:
    folder = init(tables)
    with pytest.raises(InvalidInput, match=r"headrace.toml") as refused:
        changed(folder, old, new)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("k = 200, quota = 60", "kk = 200", "channels.embedding has an unknown field 'kk'"),
        ('source = "own"', 'source = "mine"', "channels.own.source must be one of two_tower"),
        ("tags = ", "tag = ", "features has an unknown field 'tag'"),
        ('base = "general"', 'base = "generic"', "recipe.base 'generic' is none of general"),
        ("[recipe.set]", "[recipe.set]\nranker.candidatez = 3", "'candidatez' is no setting"),
    ],
)
def test_what_cannot_be_trained_is_named(tables: Path, old: str, new: str, problem: str) -> None:
    project = changed(init(tables), old, new)
    with pytest.raises(InvalidInput, match=r"headrace.toml|set:") as refused:
        project_recipe(project)
    assert problem in str(refused.value)


def test_columns_that_are_not_there_are_named_before_training(tables: Path) -> None:
    folder = init(tables)
    changed(folder, "numbers = [", 'numbers = ["weight", ')
    changed(folder, "lexical = {", 'lexical = { lexical = { text_columns = ["maker"] },')
    with pytest.raises(InvalidInput) as refused:
        raise headrace("train", "--project", str(folder)).error or AssertionError("it trained")
    said = {v.field.rpartition(" ")[2]: v.description for v in refused.value.violations}
    assert said == {
        "features.numbers": "'weight' is no column of the tables",
        "channels.lexical.lexical": "'maker' is no column of the tables",
    }


def test_a_folder_that_cannot_be_written_is_told(tables: Path) -> None:
    files = (f"--{name}={tables / name}.parquet" for name in ("items", "events"))
    done = headrace("init", str(tables / "items.parquet" / "shop"), *files)
    assert isinstance(done.error, Unavailable)


def test_rankers_of_a_young_shop_leave_channels_enough_to_learn_from(tables: Path) -> None:
    project = read_project(init(tables))
    recipe, data = project_recipe(project), parquet.load(project.data_dir)
    run = Run(recipe=recipe, dataset=data, seed=0, gate=lambda *_: True)
    split = split_of(data.queries)
    first_ms = int(timestamps_ms(data.queries).min())
    share = (run.early_ms(split.test_from_ms) - first_ms) / (split.test_from_ms - first_ms)
    assert 0.6 < share < 0.8


def test_settings_of_the_recipe_are_those_of_the_file(tables: Path) -> None:
    said = '[recipe.set]\ntwo_tower.fit.epochs = 2\nranker.model.wide = false\nattributes = ["title"]'
    recipe = project_recipe(changed(init(tables), "[recipe.set]", said))
    assert recipe.two_tower.fit.epochs == 2
    assert recipe.ranker is not None
    assert not recipe.ranker.model.wide
    assert recipe.attributes == ("title",)


def test_another_recipe_can_be_named(tables: Path) -> None:
    folder = init(tables)
    path = folder / "headrace.toml"
    path.write_text('surface = "my-shop"\n[recipe]\nbase = "movielens"\nset = { two_tower.fit.epochs = 1 }\n')
    recipe = project_recipe(read_project(folder))
    assert (recipe.name, recipe.surface, recipe.two_tower.fit.epochs) == ("my-shop", "my-shop", 1)


def test_options_go_before_the_file_and_the_file_before_defaults(tables: Path) -> None:
    project = changed(init(tables), "routers = 1", 'routers = 1\naccess_path = "who.json"')
    settings = ClusterSettings(workspace="w", host="127.0.0.2", router_port=0)
    made = with_project(settings, project, {"host", "router_port"})
    assert (made.host, made.router_port, made.controller_port) == ("127.0.0.2", 0, 50050)
    assert made.routers == 1
    assert made.access_path == str(project.folder / "who.json")
    assert with_project(settings, project, {"access"}).access_path == ""
    more = changed(project.folder, "replicas = 2\n", "")
    one = changed(more.folder, "shards = 2", "shards = 1")
    assert with_project(settings, one, set()).replicas == 1
