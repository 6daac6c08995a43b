"""Geohash cells as whole numbers, and distances on the sphere.

A cell of `bits` halves the world that often: the first bit halves the longitude, the next the latitude, and
so on; every five bits are one letter of the text form. Source: Niemeyer's geohash, 2008; Morton, 1966.
Legend: P = places.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BITS = 50
"""Bits of a full code: cells of about a metre."""

EARTH_RADIUS_KM = 6371.0088
_LETTERS = "0123456789bcdefghjkmnpqrstuvwxyz"


def encode(latitude_P: Floats, longitude_P: Floats) -> Ints:
    """Return the full code of each place, in degrees."""
    half = BITS // 2
    x_P = _steps(longitude_P, 180.0, half)
    y_P = _steps(latitude_P, 90.0, half)
    code_P = np.zeros(len(x_P), np.int64)
    for bit in range(half):
        code_P |= ((x_P >> bit) & 1) << (2 * bit + 1) | ((y_P >> bit) & 1) << (2 * bit)
    return code_P


def _steps(degrees_P: Floats, limit: float, bits: int) -> Ints:
    scaled = (np.asarray(degrees_P, np.float64) + limit) / (2 * limit) * (1 << bits)
    return np.clip(scaled.astype(np.int64), 0, (1 << bits) - 1)


def text(code: int, letters: int) -> str:
    """Return the first letters of a full code as they are usually written."""
    return "".join(_LETTERS[(code >> (BITS - 5 * (i + 1))) & 31] for i in range(letters))


def cells_around(latitude: float, longitude: float, bits: int) -> Ints:
    """Return the cell of a place and its eight neighbours as codes of `bits` (even), each once.

    Cells meet across the date line; none lies beyond a pole.
    """
    height, width = 180.0 / (1 << bits // 2), 360.0 / (1 << bits // 2)
    steps = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], np.float64)
    latitude_P = latitude + steps[:, 0] * height
    longitude_P = (longitude + steps[:, 1] * width + 180.0) % 360.0 - 180.0
    kept = np.abs(latitude_P) <= 90.0
    return np.unique(encode(latitude_P[kept], longitude_P[kept]) >> (BITS - bits))


def smallest_side_km(latitude: float, bits: int) -> float:
    """Return how far the cells around a place reach in every direction, at least.

    That is the height of a cell or, towards the poles, the width of the narrowest of the nine.
    """
    height = 180.0 / (1 << bits // 2)
    edge = min(90.0, abs(latitude) + 2 * height)
    return float(np.radians(height) * EARTH_RADIUS_KM * min(1.0, 2.0 * np.cos(np.radians(edge))))


def distance_km(latitude: float, longitude: float, latitude_P: Floats, longitude_P: Floats) -> Floats:
    """Return the great-circle distance of each place from one place, by the haversine formula."""
    here, there_P = np.radians(latitude), np.radians(latitude_P)
    half_lat_P = (there_P - here) / 2
    half_lon_P = np.radians(longitude_P - longitude) / 2
    chord_P = np.sin(half_lat_P) ** 2 + np.cos(here) * np.cos(there_P) * np.sin(half_lon_P) ** 2
    km_P: Floats = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord_P, 0.0, 1.0)))
    return km_P
