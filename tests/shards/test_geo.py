"""Geohash cells, distances and the engine over them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.bundle import open_bundle, write_bundle
from shards.errors import MismatchedBundle
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.geo import Geo, GeoParams, geo_over, open_geo
from shards.geohash import cells_around, distance_km, encode, text
from shards.release import Stage
from shards.search_context import FilterClause, History, RawValue, SearchContext, UserState
from tests.shards.bundles import NOW_MS, manifest

PLACES = {
    "item_id": ["london", "croydon", "paris", "nowhere", "leeds", "fiji"],
    "latitude_deg": [51.5072, 51.3762, 48.8566, None, 53.8008, -17.7134],
    "longitude_deg": [-0.1276, -0.0982, 2.3522, None, -1.5491, 178.0650],
    "city": ["London", "London", "Paris", "Paris", None, None],
    "rating": [3.0, 4.0, 5.0, 5.0, 1.0, None],
}


def opened(root: Path, places: dict[str, list[object]] | None = None, **params: object) -> Geo:
    def fill(folder: Path) -> None:
        pq.write_table(pa.table(places or PLACES), folder / ITEMS_FILE)

    described = manifest("geo", Stage.RETRIEVAL, "geo", params=params)
    return open_geo(open_bundle(write_bundle(root, described, fill)), "cpu")


def at(latitude: float, longitude: float, *history: str, **features: RawValue) -> SearchContext:
    place = {"latitude_deg": latitude, "longitude_deg": longitude} if np.isfinite(latitude) else {}
    events = History(history, ("visit",) * len(history), (NOW_MS,) * len(history))
    return SearchContext(user=UserState(history=events), features={**place, **features}, now_ms=NOW_MS)


CHARING_CROSS = at(51.5081, -0.1248)
UNKNOWN = at(float("nan"), float("nan"))


def test_codes_are_geohashes() -> None:
    """The two examples of the usual description: ezs42 in Spain, u4pruydqqvj in Jutland."""
    codes = encode(np.array([42.605, 57.64911]), np.array([-5.603, 10.40744]))
    assert text(int(codes[0]), 5) == "ezs42"
    assert text(int(codes[1]), 10) == "u4pruydqqv"


def test_cells_meet_across_the_date_line_and_end_at_the_poles() -> None:
    around = cells_around(-17.7, 179.999, 20)
    (other_side,) = encode(np.array([-17.7]), np.array([-179.999])) >> 30
    assert other_side in around
    assert len(around) == 9
    assert len(cells_around(89.99, 0.0, 20)) == 6


def test_distances_are_those_of_the_sphere() -> None:
    km = distance_km(51.5072, -0.1276, np.array([48.8566, 51.5072]), np.array([2.3522, -0.1276]))
    assert km.tolist() == pytest.approx([343.6, 0.0], abs=0.5)
    (half_way_around,) = distance_km(0.0, 0.0, np.array([0.0]), np.array([180.0]))
    assert half_way_around == pytest.approx(np.pi * 6371.0088)


def test_what_is_nearest_comes_first_with_its_exact_distance(tmp_path: Path) -> None:
    engine = opened(tmp_path, radius_km=400.0)
    found = engine.retrieve(CHARING_CROSS, 10, (), ("city",), 1)
    assert found.item_ids == ("london", "croydon", "leeds", "paris")
    assert found.columns["distance_km"].tolist() == pytest.approx([0.218, 14.8, 272, 343.5], rel=0.01)
    assert found.attributes == {"city": ("London",)}
    assert engine.retrieve(CHARING_CROSS, 1, (), (), 0).item_ids == ("london",)
    abroad = (FilterClause(attribute="city", any_of=("London",), negate=True),)
    assert engine.retrieve(CHARING_CROSS, 10, abroad, (), 0).item_ids == ("leeds", "paris")


def test_the_best_comes_first_where_items_say_what_is_good(tmp_path: Path) -> None:
    engine = opened(tmp_path, radius_km=50.0, order_by="rating")
    found = engine.retrieve(CHARING_CROSS, 10, (), (), 0)
    assert found.item_ids == ("croydon", "london")
    assert found.columns["score"].tolist() == [4.0, 3.0]
    assert engine.retrieve(at(51.5, -0.1, city="Paris"), 10, (), (), 0).item_ids[:2] == ("paris", "nowhere")


def test_a_search_without_a_place_goes_by_history_or_city(tmp_path: Path) -> None:
    engine = opened(tmp_path, radius_km=50.0)
    by_history = at(float("nan"), float("nan"), "paris", "london", "nowhere", "gone")
    assert engine.retrieve(by_history, 10, (), (), 0).item_ids == ("london", "croydon")
    assert len(engine.retrieve(UNKNOWN, 10, (), (), 0)) == 0
    named = engine.retrieve(at(float("nan"), float("nan"), city="Paris"), 10, (), (), 0)
    assert named.item_ids == ("paris", "nowhere")
    assert list(named.columns) == ["score"], "nobody knows how far that is"


places = st.tuples(st.floats(-89.9, 89.9), st.floats(-180, 180))


@given(st.lists(places, min_size=1, max_size=40), places, st.integers(1, 5))
def test_cells_find_what_a_look_at_every_item_finds(
    found: list[tuple[float, float]],
    here: tuple[float, float],
    k: int,
) -> None:
    table: dict[str, list[object]] = {
        "item_id": [f"i{row}" for row in range(len(found))],
        "latitude_deg": [latitude for latitude, _ in found],
        "longitude_deg": [longitude for _, longitude in found],
    }
    engine = geo_over(ForwardIndex(pa.table(table)), GeoParams(radius_km=3_000.0))
    km = distance_km(*here, np.array(table["latitude_deg"]), np.array(table["longitude_deg"]))
    nearest = np.sort(km[km <= 3_000.0])[:k]
    answered = engine.retrieve(at(*here), k, (), (), 0)
    assert answered.columns["distance_km"].tolist() == pytest.approx(nearest.tolist(), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"cell_bits": 31}, "cell_bits must be even"),
        ({"radius_km": 0.0}, "radius_km must be above 0"),
        ({"near": 1}, "near"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(MismatchedBundle, match=problem):
        opened(tmp_path, **params)


def test_a_place_off_the_earth_is_refused(tmp_path: Path) -> None:
    moon: dict[str, list[object]] = {"item_id": ["moon"], "latitude_deg": [91.0], "longitude_deg": [0.0]}
    with pytest.raises(MismatchedBundle, match="not on Earth"):
        opened(tmp_path, moon)
