"""What a partition's bundle holds: programs, features and tokeniser of the whole, and its share of the rest.

Its goldens are what the whole answers to its own where only the partition's items are allowed.
Legend: N = items of the partition.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.ann_cascade import SECOND_FILE
from shards.ann_index import AnnIndex
from shards.bundle import Bundle, open_bundle
from shards.candidates import SCORE, Candidates
from shards.catalogue import CATALOGUE_FILE, CATALOGUE_ROWS_FILE, open_items, read_params
from shards.cross_kinds import CrossKind
from shards.errors import FieldViolation, InvalidInput
from shards.feature_kinds import ITEM_ID_COLUMN, HistoryKind
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, Golden, golden_of, read_golden, write_golden
from shards.index_subset import is_graph, subset
from shards.lookup_table import TABLE_FILE
from shards.manifest import MANIFEST_FILE, Manifest
from shards.release import Stage
from shards.search_context import Filter, FilterClause
from shards.servable import open_servable
from shards.stages import Retriever
from shards.two_tower import INDEX_FILE, PARAMETERS_FILE, TwoTower, TwoTowerParams

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened bundle whose items are divided: the undivided one, or a partition."""

    bundle: Bundle
    retriever: Retriever
    items: ForwardIndex
    golden: Golden

    @property
    def catalogue_items(self) -> int:
        """Return the number of items of the undivided catalogue."""
        partition = self.bundle.manifest.partition
        return partition.catalogue_items if partition else len(self.items)

    @property
    def catalogue_rows(self) -> Rows:
        """Return where each item stands in the undivided catalogue."""
        rows = self.items.catalogue_rows
        return np.arange(len(self.items), dtype=np.int64) if rows is None else rows


def check_can_split(manifest: Manifest) -> None:
    """Refuse with InvalidInput a model whose partitions could not answer as the whole does."""
    model = manifest.model_version
    if manifest.stage is not Stage.RETRIEVAL:
        problem = f"{model} serves {manifest.stage.value}; only retrieval searches a catalogue"
    elif manifest.engine == "lexical":
        problem = (
            f"{model} scores by BM25, which weighs words by how many texts of the whole catalogue hold them: "
            "partitions would score, and so order, otherwise than the whole"
        )
    elif manifest.params.get("clusters", 1) != 1:
        problem = f"{model} spreads answers over clusters, of which a partition holds parts"
    elif manifest.engine not in _SHARES:
        problem = f"{model} has engine {manifest.engine!r}, which cannot be split"
    else:
        return
    raise InvalidInput(FieldViolation("model", problem))


def open_source(path: Path) -> Source:
    """Verify and open the bundle at `path`; BundleError names the file at fault."""
    bundle = open_bundle(path)
    check_can_split(bundle.manifest)
    retriever = open_servable(bundle, "cpu")
    assert isinstance(retriever, Retriever)
    golden = read_golden(bundle.file(GOLDEN_FILE))
    return Source(bundle=bundle, retriever=retriever, items=open_items(bundle), golden=golden)


def write_files(folder: Path, source: Source, rows_N: Rows) -> None:
    """Write the files of the partition of these rows of the source, rising, into an empty folder."""
    shared = set(source.bundle.manifest.files) - _OWN_FILES
    for name in shared - {MANIFEST_FILE}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.bundle.path / name, folder / name)
    pq.write_table(_read(source, ITEMS_FILE).take(rows_N), folder / ITEMS_FILE)
    np.save(folder / CATALOGUE_ROWS_FILE, source.catalogue_rows[rows_N], allow_pickle=False)
    _SHARES[source.bundle.manifest.engine](folder, source, rows_N)
    write_golden(folder / GOLDEN_FILE, _golden(folder, source, rows_N))


def _share_two_tower(folder: Path, source: Source, rows_N: Rows) -> None:
    index = faiss.read_index(str(source.bundle.file(INDEX_FILE)))
    faiss.write_index(subset(index, rows_N), str(folder / INDEX_FILE))
    if SECOND_FILE in source.bundle.manifest.files:
        np.save(folder / SECOND_FILE, np.load(source.bundle.file(SECOND_FILE), allow_pickle=False)[rows_N])
    share_catalogue(folder, source)


def share_catalogue(folder: Path, source: Source) -> None:
    """Write the items as the towers know them, where other items than those of the whole are in `folder`."""
    spec = source.bundle.spec
    assert spec is not None
    crossed = any(isinstance(feature, CrossKind) for feature in spec.features)
    if CATALOGUE_FILE in source.bundle.manifest.files:
        shutil.copyfile(source.bundle.file(CATALOGUE_FILE), folder / CATALOGUE_FILE)
    elif crossed or any(isinstance(feature, HistoryKind) for feature in spec.features):
        read = {ITEM_ID_COLUMN, *(spec.item_columns if crossed else spec.history_columns)}
        pq.write_table(_read(source, ITEMS_FILE).select(sorted(read)), folder / CATALOGUE_FILE)


def _share_table(folder: Path, source: Source, rows_N: Rows) -> None:
    if TABLE_FILE in source.bundle.manifest.files:
        table = _read(source, TABLE_FILE)
        own = pc.is_in(table.column("item_id"), value_set=_item_ids(source, rows_N))
        pq.write_table(table.filter(own), folder / TABLE_FILE)


_SHARES: Mapping[str, Callable[[Path, Source, Rows], None]] = {
    "table": _share_table,
    "two_tower": _share_two_tower,
}
"""What each engine that can be split writes of its own."""

_OWN_FILES = {
    ITEMS_FILE,
    CATALOGUE_ROWS_FILE,
    CATALOGUE_FILE,
    INDEX_FILE,
    SECOND_FILE,
    TABLE_FILE,
    GOLDEN_FILE,
    PARAMETERS_FILE,
}


def _golden(folder: Path, source: Source, rows_N: Rows) -> Golden:
    """Return what the whole answers to its goldens about these items."""
    retriever: Retriever = source.retriever
    allowed: Filter = (_only(source, rows_N),)
    if isinstance(retriever, TwoTower) and is_graph(faiss.read_index(str(folder / INDEX_FILE))):
        # A graph of fewer items finds its own way; what it finds has the scores that the whole gives.
        knobs = read_params(TwoTowerParams, source.bundle).ann
        ann = AnnIndex.open(folder / INDEX_FILE, knobs=knobs)
        items = ForwardIndex.open(folder / ITEMS_FILE)
        retriever, allowed = replace(retriever, ann=ann, items=items), ()
    k = max((len(item_ids) for item_ids in source.golden.item_ids), default=0)
    answers = [retriever.retrieve(context, k, allowed, (), 0) for context in source.golden.contexts]
    scores = [Candidates(item_ids=a.item_ids, columns={SCORE: a.columns[SCORE]}) for a in answers]
    return golden_of(source.golden.contexts, scores)


def _only(source: Source, rows_N: Rows) -> FilterClause:
    return FilterClause(
        attribute=ITEM_ID_COLUMN, any_of=tuple(source.items.item_ids[r] for r in rows_N.tolist())
    )


def _read(source: Source, file: str) -> pa.Table:
    return pq.read_table(source.bundle.file(file), partitioning=None)


def _item_ids(source: Source, rows_N: Rows) -> pa.Array:
    return _read(source, ITEMS_FILE).column(ITEM_ID_COLUMN).take(pa.array(rows_N)).combine_chunks()
