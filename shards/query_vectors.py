"""The vectors of the last queries, by what the tower was given: the same search is not encoded twice.

A vector depends on the features of the search and on the bundle alone. It is remembered by those features, in
memory that belongs to the open bundle: another release has its own, and no vector is ever out of date. What a
user just did changes the features, so it is another query.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from shards.candidates import Floats
from shards.program_inputs import Arrays

REMEMBERED = 1024
"""Of each bundle: with 64 floats, half a megabyte."""


class QueryVectors:
    """Remembers the vectors that were asked for last; threads may share it."""

    def __init__(self, encode: Callable[[Arrays], Floats], remembered: int = REMEMBERED) -> None:
        self._encode = encode
        self._remembered = remembered
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, features: Arrays) -> Floats:
        """Return the vector [1, D] or vectors [1, H, D] that `encode` makes of the features.

        They may be another caller's, too.
        """
        key = _key(features)
        with self._lock:
            vector_1D = self._vectors.get(key)
            if vector_1D is not None:
                self._vectors.move_to_end(key)
                return vector_1D
        # Two threads may both encode it; they make the same.
        vector_1D = self._encode(features)
        with self._lock:
            self._vectors[key] = vector_1D
            if len(self._vectors) > self._remembered:
                self._vectors.popitem(last=False)
        return vector_1D


def _key(features: Arrays) -> bytes:
    """Return a digest of the values; their names, types and shapes are the bundle's."""
    digest = hashlib.blake2b(digest_size=16)
    for array in features.values():
        digest.update(array.data)
    return digest.digest()
