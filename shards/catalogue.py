"""What engines share: the items of a bundle, the encoder over them, and answers made from rows.

Legend: N = items, C = candidates, D = width of a vector.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates, Floats
from shards.errors import CorruptBundle, MismatchedBundle, Unavailable
from shards.feature_encoder import RequestEncoder
from shards.features import FEATURES_FILE
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.gathering import CATALOGUE_ROW, row_keys
from shards.json_codec import from_json
from shards.manifest import MANIFEST_FILE
from shards.npy import read_array
from shards.search_context import Filter

Rows = NDArray[np.int64]
P = TypeVar("P")

ITEM_VECTORS_FILE = "item_vectors.npy"
"""A vector for each item, float32 or float16 [N, D]."""
CATALOGUE_FILE = "catalogue.parquet"
"""The items that features read, ids in row order, where a bundle holds others: a part of them, or queries."""
CATALOGUE_ROWS_FILE = "catalogue_rows.npy"
"""In a partition, where each of its items stands in the whole catalogue: int64 [N], rising."""


def open_items(bundle: Bundle) -> ForwardIndex:
    """Return the items of a bundle; BundleError where it has none."""
    items = ForwardIndex.open(bundle.file(ITEMS_FILE))
    if bundle.manifest.partition is not None:
        items.catalogue_rows = read_catalogue_rows(bundle, len(items))
    return items


def read_catalogue_rows(bundle: Bundle, item_count: int) -> Rows:
    """Return where the items of a partition stand in the catalogue [N]; BundleError where it is wrong."""
    path = bundle.file(CATALOGUE_ROWS_FILE)
    rows_N = read_array(path)
    if rows_N.shape != (item_count,) or rows_N.dtype != np.int64 or (np.diff(rows_N) <= 0).any():
        raise MismatchedBundle(path.name, f"is no rising row of each of {item_count} items")
    return rows_N


def read_item_vectors(path: Path, item_count: int) -> Floats:
    """Return cached item vectors [N, D]; BundleError where the file is none or not of these items."""
    vectors_ND = read_array(path)
    if vectors_ND.ndim != 2 or len(vectors_ND) != item_count or vectors_ND.dtype.kind != "f":
        problem = f"is {vectors_ND.dtype} {vectors_ND.shape}, not a vector for each of {item_count} items"
        raise MismatchedBundle(path.name, problem)
    return vectors_ND


def open_encoder(bundle: Bundle, items: ForwardIndex) -> RequestEncoder:
    """Return the encoder of a bundle's features; MismatchedBundle where it has none or they do not fit."""
    if bundle.spec is None:
        raise MismatchedBundle(FEATURES_FILE, f"is missing, which engine {bundle.manifest.engine!r} needs")
    names = bundle.spec.item_columns
    if CATALOGUE_FILE in bundle.manifest.files:
        # Towers know items by their row in the whole catalogue; it has no columns but those that are read.
        items = ForwardIndex.open(bundle.file(CATALOGUE_FILE))
        names = tuple(name for name in names if name in items.names)
    try:
        columns = items.columns(names)
        return RequestEncoder(bundle.spec, bundle.tokenizer, items.lookup, columns)
    except ValueError as error:
        raise MismatchedBundle(FEATURES_FILE, str(error)) from error


def read_params(kind: type[P], bundle: Bundle) -> P:
    """Return the engine's settings in the manifest as a dataclass; MismatchedBundle says what is wrong."""
    try:
        return from_json(kind, dict(bundle.manifest.params), "params")
    except ValueError as error:
        raise MismatchedBundle(MANIFEST_FILE, str(error)) from error


def read_rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Return the columns of the schema in a Parquet file; CorruptBundle where they cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=schema.names, use_threads=False).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error


def item_rows_of(table: pa.Table, items: ForwardIndex, path: Path) -> Rows:
    """Return the row of each line's item; MismatchedBundle where the bundle's items lack one."""
    rows = items.rows_of(table.column("item_id").to_pylist())
    if (rows < 0).any():
        unknown = table.column("item_id")[int(np.argmin(rows))].as_py()
        raise MismatchedBundle(path.name, f"holds item {unknown!r}, which {ITEMS_FILE} does not")
    return rows


def known_rows(items: ForwardIndex, candidates: Candidates) -> tuple[Rows, Candidates]:
    """Return the candidates that the bundle knows, in their order, and their rows [C]."""
    rows = items.rows_of(candidates.item_ids)
    known = rows >= 0
    return (rows, candidates) if known.all() else (rows[known], candidates.take(np.flatnonzero(known)))


def best_first(score_C: NDArray[np.floating[Any]], keep: int) -> NDArray[np.intp]:
    """Return the positions of the best `keep` scores, none of them NaN; equal ones stay in their order."""
    if keep >= len(score_C):
        return np.argsort(-score_C, kind="stable")
    # Sorting only what is as good as the last one kept takes a tenth of the time for 500 of 10,000.
    last = np.partition(-score_C, keep - 1)[keep - 1]
    contenders = np.flatnonzero(-score_C <= last)
    return contenders[np.argsort(-score_C[contenders], kind="stable")][:keep]


def answer(
    items: ForwardIndex,
    rows: Rows,
    columns: Mapping[str, Floats],
    attributes: Sequence[str],
    attribute_count: int,
) -> Candidates:
    """Return the items at `rows` [C] with their columns [C], and attributes of the first of them.

    InvalidInput names an attribute that the items do not have.
    """
    if items.catalogue_rows is not None:
        columns = {**columns, CATALOGUE_ROW: row_keys(items.catalogue_rows[rows])}
    return Candidates(
        item_ids=items.ids_at(rows),
        columns=columns,
        attributes=items.attributes(rows[:attribute_count].tolist(), attributes) if attributes else {},
    )


def best_allowed(
    items: ForwardIndex,
    rows: Rows,
    scores: NDArray[np.float64],
    k: int,
    allowed: Filter,
    attributes: Sequence[str],
    attribute_count: int,
) -> Candidates:
    """Return the best `k` of the items at `rows` [C] that the filter allows, equal scores in their order."""
    if allowed:
        kept = items.allowed(allowed)[rows]
        rows, scores = rows[kept], scores[kept]
    score = scores.astype(np.float32)
    order = best_first(score, k)
    return answer(items, rows[order], {SCORE: score[order]}, attributes, attribute_count)


def check_finite(values: NDArray[np.floating[Any]], bundle: Bundle) -> None:
    """Refuse with Unavailable what no order can be made of: a model whose weights or input went wrong."""
    if not np.isfinite(values).all():
        raise Unavailable(f"model {bundle.manifest.model_version} gave a score that is not a finite number")
