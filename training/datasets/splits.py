"""Splits in time: everything that trains happened before everything that tests."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.datasets.tables import TIMESTAMP, Dataset, timestamps_ms

SPLITS = ("train", "valid", "test")
"""The values of `queries.split`, in their order in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSplit:
    """Two moments, in milliseconds: valid starts at the first, test at the second."""

    valid_from_ms: int
    test_from_ms: int

    def __post_init__(self) -> None:
        if self.valid_from_ms > self.test_from_ms:
            raise ValueError("valid must not start after test")

    def labels(self, times_ms: NDArray[np.int64]) -> pa.StringArray:
        """Return "train", "valid" or "test" for each time, [N]."""
        codes = (times_ms >= self.valid_from_ms).astype(np.int32) + (times_ms >= self.test_from_ms)
        return pa.DictionaryArray.from_arrays(codes, list(SPLITS)).cast(pa.string())


def quantile_split(times_ms: NDArray[np.int64], *, valid: float, test: float) -> TimeSplit:
    """Return the split whose last shares of all events are valid and test.

    One moment for all users, not one per user: statistics such as popularity and the click memory
    are shared between users, and only a common moment keeps one user's test from another's training.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError("valid and test must be positive shares that leave something to train on")
    ordered = np.sort(times_ms)
    return TimeSplit(
        valid_from_ms=int(ordered[int(len(ordered) * (1 - valid - test))]),
        test_from_ms=int(ordered[int(len(ordered) * (1 - test))]),
    )


def split_of(queries: pa.Table) -> TimeSplit:
    """Return the moments at which a query table's valid and test parts start.

    A missing part starts where the next one does, and a missing test part just after the last query.
    """
    times_ms = timestamps_ms(queries)
    labels = queries.column("split")

    def start(label: str, otherwise: int) -> int:
        mask = pc.equal(labels, label).to_numpy()
        return int(times_ms[mask].min()) if mask.any() else otherwise

    end = int(times_ms.max()) + 1 if len(times_ms) else 0
    test_from_ms = start("test", end)
    return TimeSplit(valid_from_ms=start("valid", test_from_ms), test_from_ms=test_from_ms)


def known_until_ms(dataset: Dataset) -> int:
    """Return the moment before which a release may know events: where the test starts.

    Without queries nothing is tested, and it is just after the last event.
    """
    if len(dataset.queries):
        return split_of(dataset.queries).test_from_ms
    times_ms = timestamps_ms(dataset.events)
    return int(times_ms.max()) + 1 if len(times_ms) else 0


def rows_of(queries: pa.Table, split: str) -> pa.Table:
    """Return the queries of one split, in their order."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    return queries.filter(pc.equal(queries.column("split"), split))


def before(table: pa.Table, now_ms: int) -> pa.Table:
    """Return the rows with a timestamp strictly before `now_ms`."""
    return table.filter(pc.less(table.column("timestamp"), pa.scalar(now_ms, TIMESTAMP)))
