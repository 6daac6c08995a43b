"""Engine "geo": what is near, newest or best first (channel C5).

Where the search is: its features `latitude_deg` and `longitude_deg` where it has them, else the newest item
of the user's history that has a place. Candidates are the items of that geohash cell and its eight
neighbours, as far as those reach all around; where they are fewer than the search asks for, cells twice as
wide and high are looked at, until there are enough or all within `radius_km`. Where the search names a
`city`, items of that city are candidates too, however far. Answers are sorted by `order_by`, a column of the
items, highest first, nearer first among equals; by distance alone where it is empty. Each has its exact
distance.

Files: items.parquet with the columns latitude_deg and longitude_deg. Legend: N = items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates
from shards.catalogue import Rows, answer, open_items, read_params
from shards.column_encoder import numbers, text_of
from shards.errors import MismatchedBundle
from shards.forward_index import ITEMS_FILE, ForwardIndex, Mask
from shards.geohash import BITS, Floats, cells_around, distance_km, encode, smallest_side_km
from shards.search_context import Filter, RawValue, SearchContext

DISTANCE = "distance_km"
"""The column of answers that holds the exact distance."""

LATITUDE, LONGITUDE, CITY = "latitude_deg", "longitude_deg", "city"
"""Features of a search, and columns of the items."""

_FINEST, _COARSEST = 40, 4
"""Bits of the cells that are looked at first and last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoParams:
    """How cells start, how far is still near, and what comes first.

    `cell_bits` is even: 30 are cells of 1.2 by .6 km at the equator, and two less are twice as wide and high.
    """

    cell_bits: int = 30
    radius_km: float = 50.0
    order_by: str = ""

    def __post_init__(self) -> None:
        if self.cell_bits % 2 or not _COARSEST <= self.cell_bits <= _FINEST:
            raise ValueError(f"cell_bits must be even and lie in {_COARSEST} to {_FINEST}")
        if not self.radius_km > 0:
            raise ValueError("radius_km must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Geo:
    """Items by place: `row_N` and `code_N` in the order of their cells, items without a place left out."""

    items: ForwardIndex
    params: GeoParams
    row_N: Rows
    code_N: NDArray[np.int64]
    latitude_N: Floats
    longitude_N: Floats
    quality_N: Floats
    """What comes first; 0 for all where nothing is named. These three in the order of the items."""
    cities: Mapping[str, Rows]

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items near the search; none where nobody knows where that is."""
        mask_N = self.items.allowed(allowed) if allowed else None
        here = self._place(context)
        rows = self._near(*here, k, mask_N) if here else np.zeros(0, np.int64)
        in_city = self.cities.get(_text(context.features.get(CITY)), rows[:0])
        rows = np.union1d(rows, in_city if mask_N is None else in_city[mask_N[in_city]])
        far_km = distance_km(*here, self.latitude_N[rows], self.longitude_N[rows]) if here else None
        order = np.lexsort((rows, rows * 0.0 if far_km is None else far_km, -self.quality_N[rows]))[:k]
        score = self.quality_N[rows] if self.params.order_by else _closeness(far_km, len(rows))
        columns = {SCORE: score[order].astype(np.float32)}
        if far_km is not None:
            columns[DISTANCE] = far_km[order].astype(np.float32)
        return answer(self.items, rows[order], columns, attributes, attribute_count)

    def _place(self, context: SearchContext) -> tuple[float, float] | None:
        latitude, longitude = (context.features.get(name) for name in (LATITUDE, LONGITUDE))
        if isinstance(latitude, float | int) and isinstance(longitude, float | int):
            return float(latitude), float(longitude)
        rows = self.items.rows_of(context.user.history.item_ids)
        rows = rows[rows >= 0]
        placed = rows[np.isfinite(self.latitude_N[rows])]
        if not len(placed):
            return None
        return float(self.latitude_N[placed[-1]]), float(self.longitude_N[placed[-1]])

    def _near(self, latitude: float, longitude: float, k: int, mask_N: Mask | None) -> Rows:
        """Return the allowed items that the smallest cells around find `k` of, or all within the radius."""

        def within(rows: Rows, km: float) -> Rows:
            if mask_N is not None:
                rows = rows[mask_N[rows]]
            far_km = distance_km(latitude, longitude, self.latitude_N[rows], self.longitude_N[rows])
            return rows[far_km <= km]

        radius_km = self.params.radius_km
        for bits in range(self.params.cell_bits, _COARSEST - 2, -2):
            reach_km = smallest_side_km(latitude, bits)
            # Further than the cells reach all around, nearer items might lie outside of them.
            rows = self._in_cells(cells_around(latitude, longitude, bits), bits)
            found = within(rows, min(reach_km, radius_km))
            if len(found) >= k or reach_km >= radius_km:
                return found
        return within(self.row_N, radius_km)

    def _in_cells(self, cells: NDArray[np.int64], bits: int) -> Rows:
        starts = np.searchsorted(self.code_N, cells << (BITS - bits))
        ends = np.searchsorted(self.code_N, (cells + 1) << (BITS - bits))
        return np.concatenate([self.row_N[start:end] for start, end in zip(starts, ends, strict=True)])


def _closeness(far_km: Floats | None, size: int) -> Floats:
    """Return a score that falls with the distance, from 1; 0 where that is not known."""
    return np.zeros(size) if far_km is None else 1.0 / (1.0 + far_km)


def _text(value: RawValue | None) -> str:
    return value if isinstance(value, str) else ""


def open_geo(bundle: Bundle, _device: str) -> Geo:
    """Open the engine; BundleError names the file at fault."""
    return geo_over(open_items(bundle), read_params(GeoParams, bundle))


def geo_over(items: ForwardIndex, params: GeoParams) -> Geo:
    """Return the engine over these items; BundleError where they have no places or impossible ones."""
    columns = items.columns([LATITUDE, LONGITUDE, *([params.order_by] if params.order_by else [])])
    latitude_N, longitude_N = (numbers(columns[name]) for name in (LATITUDE, LONGITUDE))
    placed = np.flatnonzero(np.isfinite(latitude_N) & np.isfinite(longitude_N))
    if (np.abs(latitude_N[placed]) > 90).any() or (np.abs(longitude_N[placed]) > 180).any():
        raise MismatchedBundle(ITEMS_FILE, "holds a place that is not on Earth")
    quality_N = np.nan_to_num(numbers(columns[params.order_by])) if params.order_by else np.zeros(len(items))
    code = encode(latitude_N[placed], longitude_N[placed])
    order = np.argsort(code, kind="stable")
    return Geo(
        items=items,
        params=params,
        row_N=placed[order],
        code_N=code[order],
        latitude_N=latitude_N,
        longitude_N=longitude_N,
        quality_N=quality_N,
        cities=_cities(items),
    )


def _cities(items: ForwardIndex) -> dict[str, Rows]:
    """Return the rows of the items of each city, where items have one."""
    found: dict[str, list[int]] = {}
    for row, value in enumerate(items.columns([CITY])[CITY] if CITY in items.names else ()):
        if value is not None:
            found.setdefault(text_of(value), []).append(row)
    return {city: np.array(rows, np.int64) for city, rows in found.items()}
