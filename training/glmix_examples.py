"""Labels as examples of a GLMix: what was known of user and item when the two met.

Items' statistics are as old as those of a release that is made again every so many days.

Legend: L = labels, E = examples, U = numbers of a user, I = of an item, X = of an item and cross features.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.feature_encoder import RequestEncoder
from shards.features import FeatureSpec
from shards.forward_index import ForwardIndex
from shards.search_context import SearchContext
from training.datasets.contexts import search_contexts
from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset
from training.event_labels import Labels
from training.glmix import Examples
from training.item_statistics import items_as_of
from training.models.glmix import GLMix
from training.tensors import as_tensors


def contexts_of(dataset: Dataset, labels: Labels) -> list[SearchContext]:
    """Return each label's user at the moment when it opened [L], without a history: no feature reads one."""
    opened = pa.table(
        {
            "query": pa.array([""] * len(labels), pa.string()),
            "user_id": labels.user_ids,
            "timestamp": pa.array(labels.opened_ms_L, pa.int64()).cast(TIMESTAMP),
        }
    )
    return list(search_contexts(dataset, opened, history_limit=0))


@torch.no_grad()
def encoded(
    model: GLMix, spec: FeatureSpec, items: pa.Table, dataset: Dataset, labels: Labels, every_days: float
) -> Examples:
    """Return the examples of these labels, in their order; `items` are those that the model's rows are of.

    Items' statistics are made anew every so many days. Raises ValueError for a label of an item that is not
    among them.
    """
    index = ForwardIndex(items)
    row_L = index.rows_of(labels.item_ids.to_pylist())
    if (row_L < 0).any():
        raise ValueError(
            f"there is a label of item {labels.item_ids[int(np.argmin(row_L))]}, which is unknown"
        )
    columns = index.columns(spec.item_columns)
    encoder = RequestEncoder(spec, None, index.rows, columns)
    request = as_tensors(encoder.encode_requests(contexts_of(dataset, labels)))
    item = as_tensors(encoder.encode_items(columns))
    row = torch.from_numpy(row_L)
    cross_LK = torch.from_numpy(_cross(spec, index, items, dataset, labels.opened_ms_L, row_L, every_days))
    return Examples(
        user_EU=model.request_numbers(request).to(torch.float64),
        item_EX=torch.cat([model.item_numbers(item)[row], cross_LK], dim=1).to(torch.float64),
        user_row_E=request[model.user],
        item_row_E=item[model.item][row],
        label_E=torch.from_numpy(labels.label_L.astype(np.float64)),
        weight_E=torch.from_numpy(labels.weight_L),
    )


def _cross(
    spec: FeatureSpec,
    index: ForwardIndex,
    items: pa.Table,
    dataset: Dataset,
    time_L: NDArray[np.int64],
    row_L: NDArray[np.int64],
    every_days: float,
) -> NDArray[np.float32]:
    """Return the cross features [L, K]: numbers of items as of the last time when they were made anew."""
    cross_LK = np.zeros((len(row_L), len(spec.cross_names)), np.float32)
    if not spec.cross_names:
        return cross_LK
    own = items.select([name for name in items.column_names if name in dataset.items.column_names])
    every_ms = round(every_days * DAY_MS)
    made_L = time_L // every_ms * every_ms
    for made_ms in np.unique(made_L).tolist():
        at = np.flatnonzero(made_L == made_ms)
        known = ForwardIndex(items_as_of(own, dataset.events, made_ms))
        encoder = RequestEncoder(spec, None, index.rows, known.columns(spec.item_columns))
        candidates = Candidates(item_ids=tuple(index.item_ids[row] for row in row_L[at].tolist()))
        cross_LK[at] = encoder.encode_cross(SearchContext(now_ms=made_ms), row_L[at], candidates)
    return cross_LK
