"""A bundle for each partition of an embedded catalogue: items, the index of their vectors, the query tower.

Items divide by a hash of their id, as those of `headrace models split` do. Whoever writes a partition holds
the vectors of that partition and the items of one block.
Legend: N = items of the partition, D = width of a vector.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.catalogue import CATALOGUE_ROWS_FILE
from shards.errors import FieldViolation, InvalidInput
from shards.features import FEATURES_FILE
from shards.forward_index import ITEMS_FILE
from shards.json_codec import from_json, to_json
from shards.manifest import MANIFEST_FILE, Manifest, Partition
from shards.partition_files import Source, open_source, share_catalogue
from shards.release import ModelVersion, partition_of
from shards.tokenizer import TOKENIZER_FILE
from shards.two_tower import INDEX_FILE, QUERY_TOWER, TwoTowerParams
from training.answered_bundle import write_answered
from training.catalogue_blocks import Block
from training.channels import GOLDEN_K
from training.item_index import untuned_index


@dataclass(frozen=True, kw_only=True)
class PartitionWriter:
    """Writes partitions of a catalogue whose blocks are all embedded, as bundles of `model` below `root`."""

    root: Path
    source: ModelVersion
    """The bundle whose tower embedded them."""
    model: ModelVersion
    partitions: int
    blocks: tuple[Block, ...]

    def bundle(self, index: int) -> ModelVersion:
        """Return the bundle of a partition, or the one of all."""
        return self.model if self.partitions == 1 else partition_of(self.model, index, self.partitions)

    def is_there(self, index: int) -> bool:
        """Return whether a partition has been written."""
        bundle = self.bundle(index)
        return (self.root / bundle.model / bundle.version / MANIFEST_FILE).is_file()

    def __call__(self, index: int) -> None:
        """Write a partition, unless it is there. `InvalidInput` where it would hold nothing."""
        if self.is_there(index):
            return
        source = self._opened
        contexts = source.golden.contexts

        def fill(folder: Path) -> None:
            self._fill(folder, index)

        write_answered(self.root, self._manifest(index), fill, contexts, [GOLDEN_K] * len(contexts))

    @cached_property
    def _opened(self) -> Source:
        return open_source(self.root / self.source.model / self.source.version)

    @property
    def bundles(self) -> tuple[ModelVersion, ...]:
        """Return the bundles that hold the catalogue between them, in order."""
        return tuple(self.bundle(index) for index in range(self.partitions))

    @cached_property
    def _items(self) -> int:
        return sum(block.size for block in self.blocks)

    def _manifest(self, index: int) -> Manifest:
        """Return the source's manifest without what was measured of, or tuned for, its own items."""
        described = self._opened.bundle.manifest
        bundle = self.bundle(index)
        partition = Partition(
            model=self.model.model, index=index, count=self.partitions, catalogue_items=self._items
        )
        return replace(
            described,
            name=bundle.model,
            version=bundle.version,
            programs={QUERY_TOWER: described.programs[QUERY_TOWER]},
            params=to_json(_kept(described)),
            metrics={},
            sizes={**described.sizes, "items": sum(len(rows_N) for _, rows_N in self._shares(index))},
            partition=partition if self.partitions > 1 else None,
        )

    def _fill(self, folder: Path, index: int) -> None:
        source = self._opened.bundle
        shared = {FEATURES_FILE, TOKENIZER_FILE, *source.manifest.programs[QUERY_TOWER].files}
        for name in shared & set(source.manifest.files):
            shutil.copyfile(source.path / name, folder / name)
        share_catalogue(folder, self._opened)
        if self.partitions > 1:
            rows = [block.first_row + rows_N for block, rows_N in self._shares(index)]
            np.save(folder / CATALOGUE_ROWS_FILE, np.concatenate(rows), allow_pickle=False)
        self._write_items(folder, index)
        vector_ND = np.concatenate([block.vectors()[0][rows_N] for block, rows_N in self._shares(index)])
        if not len(vector_ND):
            problem = f"partition {index} of {self.partitions} would hold none of the {self._items} items"
            raise InvalidInput(FieldViolation("partitions", problem))
        faiss.write_index(untuned_index(vector_ND), str(folder / INDEX_FILE))

    def _write_items(self, folder: Path, index: int) -> None:
        schema = pq.read_schema(self.blocks[0].items_path)
        with pq.ParquetWriter(folder / ITEMS_FILE, schema) as writer:
            for block, rows_N in self._shares(index):
                writer.write_table(pq.read_table(block.items_path, partitioning=None).take(pa.array(rows_N)))

    def _shares(self, index: int) -> Iterator[tuple[Block, NDArray[np.int64]]]:
        """Give each block with the rows of it that belong to the partition."""
        for block in self.blocks:
            _, hash_N = block.vectors()
            yield block, np.flatnonzero(hash_N % np.uint64(self.partitions) == index)


def _kept(described: Manifest) -> TwoTowerParams:
    """Return the settings that are about the model, without those that are about its own items."""
    known = from_json(TwoTowerParams, dict(described.params), "params")
    return TwoTowerParams(radius=known.radius, stored_vectors=known.stored_vectors)
