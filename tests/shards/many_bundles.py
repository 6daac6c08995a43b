"""Hundreds of distinct real bundles in seconds: copies of a few, each with a name and a column of its own.

What a model is, its program and its goldens, is the same in all copies of one kind; the items carry the
attribute "variant", by which an answer tells which copy gave it.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.bundle import read_manifest, write_bundle
from shards.forward_index import ITEMS_FILE
from shards.manifest import MANIFEST_FILE
from shards.release import ModelVersion, Stage
from tests.shards.bundles import RELEASE, VERSION

VARIANT = "variant"


def build_many(root: Path, models: Path, count: int) -> dict[ModelVersion, Stage]:
    """Write `count` bundles below `root`, taking turns over those that `build_models` wrote to `models`."""
    kinds = sorted(RELEASE.models())
    written = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        name = f"{kind.model}-{number:03d}"
        written[ModelVersion(name, VERSION)] = RELEASE.models()[kind]
        write_copy(root, models / kind.model / kind.version, name)
    return written


def write_copy(root: Path, original: Path, name: str, *, padding_bytes: int = 0) -> Path:
    """Write one copy; `padding_bytes` of it, which nobody reads, count as its memory at the least."""

    def fill(folder: Path) -> None:
        shutil.copytree(
            original, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE, ITEMS_FILE)
        )
        items = pq.read_table(original / ITEMS_FILE, partitioning=None)
        pq.write_table(items.append_column(VARIANT, pa.array([name] * len(items))), folder / ITEMS_FILE)
        (folder / "padding").write_bytes(bytes(padding_bytes))

    return write_bundle(root, replace(read_manifest(original), name=name), fill)
