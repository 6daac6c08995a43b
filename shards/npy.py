"""Arrays of a bundle in files of their own: .npy, never with objects."""

import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import CorruptBundle


def read_array(path: Path) -> NDArray[Any]:
    """Return the array in a file; CorruptBundle names the file where it is none."""
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error
