"""A catalogue cut into blocks of items, and the vectors of a block, in a folder for one version of a model.

    <digest>.parquet   the items of a block, all columns; named by a digest of the file
    <digest>.npz       vector_ND and the hash_N that says which partition an item belongs to

A block is named by what it holds: one that did not change since another catalogue is there already.
Legend: N = items of a block, D = width of a vector.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.bundle import open_bundle
from shards.catalogue import check_finite, open_encoder, open_items
from shards.errors import FieldViolation, InvalidInput
from shards.feature_kinds import ITEM_ID_COLUMN, ItemId
from shards.features import FeatureSpec
from shards.partitioning import id_hash
from shards.runner import open_runner
from shards.two_tower import ITEM_TOWER
from training.whole_file import write_whole

BLOCK_ITEMS = 8192

_TOWER_ROWS = 512
"""Rows that the tower is given at once: an exported bag of 64 n-grams takes 16 KiB a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive items of a catalogue."""

    folder: Path
    digest: str
    first_row: int
    size: int

    @property
    def items_path(self) -> Path:
        """Return the items' file."""
        return self.folder / f"{self.digest}.parquet"

    @property
    def vectors_path(self) -> Path:
        """Return the vectors' file, which is there once the block is embedded."""
        return self.folder / f"{self.digest}.npz"

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """Return the vectors [N, D] and the hashes of the ids [N]."""
        with np.load(self.vectors_path, allow_pickle=False) as arrays:
            return arrays["vector_ND"], arrays["hash_N"]


def cut(items: Path, folder: Path, block_items: int = BLOCK_ITEMS) -> Iterator[Block]:
    """Write the items of a Parquet file as blocks and give each, reading no more than one ahead.

    Raises `InvalidInput` where the file cannot be read or has no column of ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first_row = 0
    for table in _tables(items, block_items):
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        data = buffer.getbuffer()
        digest = hashlib.sha256(data).hexdigest()[:24]
        block = Block(folder=folder, digest=digest, first_row=first_row, size=len(table))
        if not block.items_path.exists():
            write_whole(block.items_path, lambda file, data=data: file.write(data))  # type: ignore[misc]
        yield block
        first_row += len(table)


def _tables(items: Path, rows: int) -> Iterator[pa.Table]:
    """Give the rows of a file in tables of so many; batches of a file end where its row groups do."""
    try:
        with pq.ParquetFile(items) as file:
            if ITEM_ID_COLUMN not in file.schema_arrow.names:
                raise InvalidInput(FieldViolation("items", f"{items} has no column {ITEM_ID_COLUMN!r}"))
            held = file.schema_arrow.empty_table()
            for batch in file.iter_batches(rows, use_threads=False):
                held = pa.concat_tables([held, pa.Table.from_batches([batch])])
                while len(held) >= rows:
                    yield held.slice(0, rows).combine_chunks()
                    held = held.slice(rows)
            if len(held):
                yield held.combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(FieldViolation("items", f"{items} cannot be read: {error}")) from error


class BlockEmbedder:
    """Embeds blocks by the item tower of a bundle."""

    def __init__(self, source: Path) -> None:
        """Open the bundle; `InvalidInput` where it has no item tower."""
        bundle = open_bundle(source)
        if ITEM_TOWER not in bundle.manifest.programs or bundle.spec is None:
            problem = f"{bundle.manifest.model_version} has no item tower: train it anew"
            raise InvalidInput(FieldViolation("model", problem))
        self._bundle = bundle
        self._encoder = open_encoder(bundle, open_items(bundle))
        self._tower = open_runner(bundle, ITEM_TOWER, "cpu")
        self._columns = item_side_columns(bundle.spec)
        self._by_id = [feature.name for feature in bundle.spec.on("item") if isinstance(feature, ItemId)]
        self._by_id_alone = len(self._by_id) == len(bundle.spec.on("item"))

    def __call__(self, block: Block) -> None:
        """Write the vectors of a block, unless they are there."""
        if block.vectors_path.exists():
            return
        table = pq.read_table(block.items_path, partitioning=None)
        if missing := sorted(set(self._columns) - set(table.column_names)):
            raise InvalidInput(
                FieldViolation("items", f"has no column {missing[0]!r}, which the tower reads")
            )
        vector_ND = np.concatenate([self._embed(part) for part in _parts(table)])
        check_finite(vector_ND, self._bundle)
        ids = table.column(ITEM_ID_COLUMN).to_pylist()
        hash_N = np.array([id_hash(item_id) for item_id in ids], np.uint64)
        write_whole(
            block.vectors_path,
            lambda file: np.savez(file, allow_pickle=False, vector_ND=vector_ND, hash_N=hash_N),
        )

    def _embed(self, table: pa.Table) -> NDArray[np.float32]:
        encoded = self._encoder.encode_items({name: table.column(name).to_pylist() for name in self._columns})
        if self._by_id_alone and any((encoded[name] == 0).any() for name in self._by_id):
            problem = (
                f"{self._bundle.manifest.model_version} knows items by id alone, and these are not its own"
            )
            raise InvalidInput(FieldViolation("model", problem))
        (vector_ND,) = self._tower(encoded).values()
        return np.asarray(vector_ND, np.float32)


def item_side_columns(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the columns that the item tower reads, sorted."""
    return FeatureSpec(features=spec.on("item")).item_columns


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(start, _TOWER_ROWS) for start in range(0, len(table), _TOWER_ROWS))
