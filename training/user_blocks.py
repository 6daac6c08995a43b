"""Users cut into blocks, and the vectors of a block, in a folder of one run.

    <digest>.json   the users of a block as the searches that they would make; named by a digest of the file
    <digest>.npy    their vectors, float32 [B, H, D]

A block is named by what it holds, so that a run that was broken off finds what it had done.
Legend: B = users of a block, H = vectors of a user, one of each head, D = width of a vector.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.bundle import open_bundle
from shards.candidates import Floats
from shards.catalogue import check_finite, open_encoder, open_items
from shards.json_codec import from_json, parse, render, to_json
from shards.runner import open_runner
from shards.search_context import SearchContext
from shards.two_tower import QUERY_TOWER
from training.whole_file import write_whole

_TOWER_ROWS = 256
"""Users that the tower is given at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """The file of a block."""

    contexts: tuple[SearchContext, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBlock:
    """Users who are embedded, and lost, together."""

    folder: Path
    digest: str

    @property
    def contexts_path(self) -> Path:
        """Return the users' file."""
        return self.folder / f"{self.digest}.json"

    @property
    def vectors_path(self) -> Path:
        """Return the vectors' file, which is there once the block is embedded."""
        return self.folder / f"{self.digest}.npy"

    def contexts(self) -> tuple[SearchContext, ...]:
        """Return the users."""
        return from_json(_Document, parse(self.contexts_path.read_bytes()), "block").contexts

    def vectors(self) -> Floats:
        """Return their vectors [B, H, D]."""
        vector_BHD: Floats = np.load(self.vectors_path, allow_pickle=False)
        return vector_BHD


def write_block(contexts: tuple[SearchContext, ...], folder: Path) -> UserBlock:
    """Write a block of users, unless it is there."""
    data = render(to_json(_Document(contexts=contexts)))
    block = UserBlock(folder=folder, digest=hashlib.sha256(data).hexdigest()[:24])
    if not block.contexts_path.exists():
        write_whole(block.contexts_path, lambda file: file.write(data))
    return block


class UserEmbedder:
    """Embeds blocks by the query tower of a bundle, as its shards would at a search."""

    def __init__(self, source: Path) -> None:
        """Open the bundle."""
        self._bundle = open_bundle(source)
        self._encoder = open_encoder(self._bundle, open_items(self._bundle))
        self._tower = open_runner(self._bundle, QUERY_TOWER, "cpu")

    def __call__(self, block: UserBlock) -> None:
        """Write the vectors of a block, unless they are there."""
        if block.vectors_path.exists():
            return
        contexts = block.contexts()
        parts = [
            self._embed(contexts[start : start + _TOWER_ROWS])
            for start in range(0, len(contexts), _TOWER_ROWS)
        ]
        vector_BHD = np.concatenate(parts)
        check_finite(vector_BHD, self._bundle)
        write_whole(block.vectors_path, lambda file: np.save(file, vector_BHD, allow_pickle=False))

    def _embed(self, contexts: tuple[SearchContext, ...]) -> Floats:
        (vector_BHD,) = self._tower(self._encoder.encode_requests(contexts)).values()
        width = vector_BHD.shape[-1]
        return np.asarray(vector_BHD, np.float32).reshape(len(contexts), -1, width)
