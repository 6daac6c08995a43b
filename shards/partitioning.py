"""Splits a retrieval model's catalogue into partitions, each a bundle of its own.

An item's partition is a hash of its id over their number, so that 2P partitions refine P: they are made from
the P as well as from the undivided bundle. `shards.partition_files` says what a partition holds,
`shards.gathering` makes one answer of theirs, and `shards.index_subset` says what holds for which index.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.bundle import open_bundle, read_manifest, write_bundle
from shards.errors import FieldViolation, InvalidInput, NotFound
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.manifest import MANIFEST_FILE, Manifest, Partition
from shards.partition_files import Rows, Source, check_can_split, open_source, write_files
from shards.release import ModelVersion, partition_of
from shards.servable import open_servable

MAX_PARTITIONS = 256

_HASH_BYTES = 8


def partition_index(item_id: str, partitions: int) -> int:
    """Return the partition that an item belongs to."""
    return id_hash(item_id) % partitions


def id_hash(item_id: str) -> int:
    """Return 64 bits of an item's id, the same on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=_HASH_BYTES).digest())


def split(
    root: Path, model: ModelVersion, partitions: int, *, say: Callable[[ModelVersion], None] = lambda _: None
) -> tuple[ModelVersion, ...]:
    """Write the partitions of a model below `root` and return them in order; those that are there are kept.

    `say` is told each one that is written. Raises InvalidInput for a model or a number that cannot be split,
    NotFound where neither the model nor partitions to refine are there, BundleError for a source that must
    not be served, and what the disk raises. Each partition is there whole or not at all.
    """
    if not 2 <= partitions <= MAX_PARTITIONS:
        raise InvalidInput(
            FieldViolation("partitions", f"must be 2 to {MAX_PARTITIONS}, but are {partitions}")
        )
    wanted = tuple(partition_of(model, i, partitions) for i in range(partitions))
    missing = [i for i, part in enumerate(wanted) if not _is_bundle(root, part)]
    for described in _sources(root, model, partitions) if missing else ():
        own = described.partition
        todo = [i for i in missing if own is None or i % own.count == own.index]
        if todo:
            source = open_source(_path(root, described.model_version))
            for i in todo:
                _write(root, source, model, i, partitions)
                say(wanted[i])
    return wanted


def _sources(root: Path, model: ModelVersion, partitions: int) -> list[Manifest]:
    """Return the bundles that hold the whole catalogue between them: the model, or most finely divided."""
    if _is_bundle(root, model):
        whole = read_manifest(_path(root, model))
        if whole.partition is not None:
            problem = f"{model} is a partition; split {whole.partition.model}@{model.version}"
            raise InvalidInput(FieldViolation("model", problem))
        check_can_split(whole)
        return [whole]
    for count in (n for n in range(partitions - 1, 1, -1) if partitions % n == 0):
        parts = [partition_of(model, i, count) for i in range(count)]
        if all(_is_bundle(root, part) for part in parts):
            return [read_manifest(_path(root, part)) for part in parts]
    raise NotFound("bundle", str(model))


def _write(root: Path, source: Source, model: ModelVersion, index: int, partitions: int) -> None:
    """Write one partition, once a draft of it has answered its goldens."""
    rows_N = _rows_of(source, index, partitions)
    if not len(rows_N):
        problem = f"partition {index} of {partitions} would hold none of the {source.catalogue_items} items"
        raise InvalidInput(FieldViolation("partitions", problem))
    manifest = source.bundle.manifest
    part = partition_of(model, index, partitions)
    described = replace(
        manifest,
        name=part.model,
        sizes={**manifest.sizes, "items": len(rows_N)},
        partition=Partition(
            model=model.model, index=index, count=partitions, catalogue_items=source.catalogue_items
        ),
    )
    with tempfile.TemporaryDirectory(prefix=".splitting-", dir=root) as scratch:
        path = write_bundle(Path(scratch), described, lambda folder: write_files(folder, source, rows_N))
        draft = open_bundle(path, part)
        tolerance = described.tolerance
        golden = read_golden(draft.file(GOLDEN_FILE))
        replay(open_servable(draft, "cpu"), golden, tolerance.rtol, tolerance.atol)
        write_bundle(root, described, lambda folder: _copy(draft.path, folder))


def _rows_of(source: Source, index: int, partitions: int) -> Rows:
    ids = source.items.item_ids
    return np.array([r for r, item in enumerate(ids) if partition_index(item, partitions) == index], np.int64)


def _copy(draft: Path, folder: Path) -> None:
    shutil.copytree(draft, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))


def _is_bundle(root: Path, model: ModelVersion) -> bool:
    return (_path(root, model) / MANIFEST_FILE).is_file()


def _path(root: Path, model: ModelVersion) -> Path:
    return root / model.model / model.version
