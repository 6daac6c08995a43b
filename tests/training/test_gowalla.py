"""Gowalla's four files as canonical tables."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets.gowalla import CELL_LETTERS, load
from training.datasets.splits import split_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset
from training.evaluation.next_items import figures_of, next_items
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run

VISITS = {
    "train": [(7, 0, 5), (7, 1, 1), (8, 2, 1)],
    "valid": [(7, 2, 1)],
    "test": [(8, 0, 2), (8, 2, 1)],
}


def write(root: Path) -> None:
    folder = root / "gowalla_poi"
    folder.mkdir(parents=True)
    places = {"poi_id": [0, 1, 2], "latitude_deg": [30.2, 30.3, 40.7], "longitude_deg": [-97.8, -97.7, -74.0]}
    pq.write_table(pa.table(places), folder / "pois.parquet")
    for split, rows in VISITS.items():
        columns = zip(*rows, strict=True)
        names = ("user_id", "poi_id", "checkin_count")
        pq.write_table(
            pa.table(dict(zip(names, map(list, columns), strict=True))), folder / f"{split}.parquet"
        )


def test_each_split_is_a_day_on_which_the_place_of_most_checkins_comes_last(tmp_path: Path) -> None:
    write(tmp_path)
    gowalla = load(tmp_path)
    split = split_of(gowalla.queries)
    assert (split.valid_from_ms, split.test_from_ms) == (2 * DAY_MS, 3 * DAY_MS)
    events = zip(*(gowalla.events.column(name).to_pylist() for name in ("user_id", "item_id")), strict=True)
    assert list(events) == [("7", "1"), ("8", "2"), ("7", "0"), ("7", "2"), ("8", "2"), ("8", "0")]
    assert gowalla.items.column("latitude_deg").to_pylist() == [30.2, 30.3, 40.7]
    assert gowalla.items.column("cell_3").to_pylist() == ["9v6", "9v6", "dr5"]
    assert len(gowalla.queries) == len(gowalla.events)
    (asked,) = next_items(gowalla, "test", history_limit=10)
    assert asked.context.user.user_id == "8"
    assert asked.relevant == {"0"}, "place 2 was visited before"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"pois\.parquet does not exist"):
        load(tmp_path)


def real_slice(users: int) -> Dataset:
    """Return the real places with the first users' check-ins; skips the test where they are not there."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    everything = load(Path(folder))
    first = everything.users.slice(0, users)

    def of_them(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table.column("user_id"), first.column("user_id").combine_chunks()))

    events, queries = of_them(everything.events), of_them(everything.queries)
    return replace(everything, users=first, events=events, queries=queries)


@pytest.mark.data
def test_places_near_beat_popular_ones_on_a_shard(tmp_path: Path) -> None:
    dataset = real_slice(250)
    destination = Destination(root=tmp_path / "models", prefix="gowalla", version="1")
    release = train(
        Run(recipe=RECIPES["gowalla"], dataset=dataset, seed=0, gate=lambda *_: True), destination
    ).release
    users = next_items(dataset, "test", history_limit=release.history_limit)
    contexts = [user.context for user in users]
    models = {channel.name: channel.model for channel in release.channels}
    near, popular = (
        asked(tmp_path / "models", tmp_path / name, models[name], contexts, k=200)
        for name in ("popular_near", "trending")
    )
    seen = [set(context.user.history.item_ids) for context in contexts]
    found = [
        figures_of(users, [tuple(i for i in page if i not in s) for page, s in zip(pages, seen, strict=True)])
        for pages in (near, popular)
    ]
    assert found[0].ndcg_20 > 1.5 * found[1].ndcg_20


def unknown_cells(dataset: Dataset) -> Dataset:
    """Return the dataset whose places are nobody knows where."""
    items = dataset.items
    nowhere = pa.array([""] * len(items), pa.string())
    for letters in CELL_LETTERS:
        name = f"cell_{letters}"
        items = items.set_column(items.column_names.index(name), name, nowhere)
    return replace(dataset, items=items)


@pytest.mark.data
def test_towers_that_know_cells_find_more_of_the_next_places_on_a_shard(tmp_path: Path) -> None:
    whole = real_slice(150)
    visited = pc.is_in(whole.items.column("item_id"), pc.unique(whole.events.column("item_id")))
    dataset = replace(whole, items=whole.items.filter(visited))
    recall = {}
    for name, known in (("cells", dataset), ("nowhere", unknown_cells(dataset))):
        destination = Destination(root=tmp_path / name, prefix="towers", version="1")
        release = train(
            Run(recipe=RECIPES["gowalla_towers"], dataset=known, seed=0, gate=lambda *_: True), destination
        ).release
        users = next_items(known, "test", history_limit=release.history_limit)
        contexts = [user.context for user in users]
        pages = asked(tmp_path / name, tmp_path / f"{name}-shard", release.channels[0].model, contexts, k=200)
        new = [
            tuple(i for i in page if i not in context.user.history.item_ids)
            for context, page in zip(contexts, pages, strict=True)
        ]
        recall[name] = figures_of(users, new).recall_20
    assert recall["cells"] > 1.2 * recall["nowhere"] > 0
