"""Vectors of users that a batch made before: features of theirs, which travel with the search as all do.

The feature of a model's name holds the version that made the vector and float32 values as base64. A version
reads no vector but its own: those of another lie in another space.

Legend: H = vectors of a user, one of each head, D = width of a vector.
"""

import base64
import binascii
from collections.abc import Mapping

import numpy as np

from shards.candidates import Floats
from shards.release import ModelVersion
from shards.search_context import RawValue

PREFIX = "vector/"
"""What the names of such features begin with; features of recipes have no slash."""


def feature_of(model: str) -> str:
    """Return the name of the feature that holds a user's vector by this model."""
    return f"{PREFIX}{model}"


def stored(vector_HD: Floats, version: str) -> str:
    """Return what the feature holds."""
    values = np.ascontiguousarray(vector_HD, dtype="<f4")
    return f"{version} {base64.b64encode(values.tobytes()).decode()}"


def read_stored(features: Mapping[str, RawValue], model: ModelVersion, width: int) -> Floats | None:
    """Return a user's vectors [H, D] by this version; None where there are none, or they are unusable."""
    value = features.get(feature_of(model.model))
    if not isinstance(value, str):
        return None
    version, _, encoded = value.partition(" ")
    if version != model.version:
        return None
    try:
        values = np.frombuffer(base64.b64decode(encoded, validate=True), "<f4")
    except (binascii.Error, ValueError):
        return None
    if not len(values) or len(values) % width or not np.isfinite(values).all():
        return None
    return values.reshape(-1, width).astype(np.float32)
