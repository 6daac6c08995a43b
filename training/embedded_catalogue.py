"""A whole catalogue embedded by a trained item tower, and written as the partitions of a new version.

Items are read in blocks, vectors go to files, and an index is of one partition: no process holds more when
the catalogue grows, as long as partitions grow in number. A run that was broken off goes on with the blocks
and partitions that are missing.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shards.errors import FieldViolation, InvalidInput
from shards.partitioning import MAX_PARTITIONS
from shards.release import ModelVersion
from training.catalogue_blocks import BLOCK_ITEMS, Block, BlockEmbedder, cut
from training.catalogue_partitions import PartitionWriter
from training.trainer import Advanced, Observer, PhaseStarted, ignore
from training.workers import Done, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueJob:
    """What to embed by which model, and where it goes.

    An empty `version` is made from the model's and from the items, so that the same job is the same version.
    """

    source: ModelVersion
    items: Path
    """A Parquet file with the columns that the item tower reads."""
    models_dir: Path
    folder: Path
    """Keeps the blocks of this source."""
    partitions: int = 1
    version: str = ""
    block_items: int = BLOCK_ITEMS
    workers: int = 2
    """Actors of the Ray that runs; 0 for this process alone."""

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise InvalidInput(FieldViolation("partitions", f"must be 1 to {MAX_PARTITIONS}"))
        if self.block_items < 1:
            raise InvalidInput(FieldViolation("block_items", "must be at least 1"))
        if self.workers < 0:
            raise InvalidInput(FieldViolation("workers", "must not be negative"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedCatalogue:
    """The version that was made, its bundles in the order of partitions, and what was done for it now."""

    model: ModelVersion
    bundles: tuple[ModelVersion, ...]
    items: int
    blocks: int
    blocks_embedded: int
    bundles_written: int


def embed_catalogue(
    job: CatalogueJob, *, observe: Observer = ignore, on_done: Callable[[Done], None] = lambda _: None
) -> EmbeddedCatalogue:
    """Embed what is not embedded yet and write the bundles that are missing.

    Needs a Ray that was joined, where there shall be workers. Raises `InvalidInput` for items or a model that
    do not fit, BundleError for a source that must not be served, and what the disk raises.
    """

    def advance(done: Done) -> None:
        observe(Advanced())
        on_done(done)

    observe(PhaseStarted(phase="cutting the catalogue into blocks"))
    blocks = tuple(cut(job.items, job.folder, job.block_items))
    if not blocks:
        raise InvalidInput(FieldViolation("items", f"{job.items} holds no item"))
    missing = [block for block in blocks if not block.vectors_path.exists()]
    observe(PhaseStarted(phase="embedding blocks", total=len(missing)))
    source = job.models_dir / job.source.model / job.source.version
    workers = Workers(job.workers)
    workers.do_all(partial(BlockEmbedder, source), missing, advance)
    writer = PartitionWriter(
        root=job.models_dir,
        source=job.source,
        model=ModelVersion(job.source.model, job.version or _version(job.source, blocks)),
        partitions=job.partitions,
        blocks=blocks,
    )
    unwritten = [index for index in range(job.partitions) if not writer.is_there(index)]
    observe(PhaseStarted(phase="writing partitions", total=len(unwritten)))
    workers.do_all(lambda: writer, unwritten, advance)
    _sweep(job.folder, blocks)
    return EmbeddedCatalogue(
        model=writer.model,
        bundles=writer.bundles,
        items=sum(block.size for block in blocks),
        blocks=len(blocks),
        blocks_embedded=len(missing),
        bundles_written=len(unwritten),
    )


def _version(source: ModelVersion, blocks: tuple[Block, ...]) -> str:
    digest = hashlib.sha256("".join(block.digest for block in blocks).encode())
    return f"{source.version}-{digest.hexdigest()[:10]}"


def _sweep(folder: Path, blocks: tuple[Block, ...]) -> None:
    """Remove blocks that are of no use to the next catalogue: those that this one no longer has."""
    kept = {path for block in blocks for path in (block.items_path, block.vectors_path)}
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()
