"""Visits: what a user did without a long pause, so that nobody's answer is in their own history.

Legend: E = events.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.datasets.tables import timestamps_ms

Ints = NDArray[np.int64]

PAUSE_MS = 30 * 60_000
"""A longer pause of a user ends a visit."""


def visit_starts_ms(events: pa.Table) -> Ints:
    """Return the moment at which each event's visit began [E]: its user's, of its session where it has one.

    Events of a session count as one visit however long their pauses are; those without one go by pauses.
    """
    times_E = timestamps_ms(events)
    user_E = _codes(events.column("user_id"))
    session_E = np.full(len(events), -1, np.int64)
    if "session_id" in events.column_names:
        session_E = _codes(events.column("session_id"))
    order = np.lexsort((times_E, session_E, user_E))
    user_E, session_E, ordered_E = user_E[order], session_E[order], times_E[order]
    begins_E = np.ones(len(events), np.bool_)
    same = (user_E[1:] == user_E[:-1]) & (session_E[1:] == session_E[:-1])
    paused = (session_E[1:] < 0) & (ordered_E[1:] - ordered_E[:-1] > PAUSE_MS)
    begins_E[1:] = ~same | paused
    starts_E = np.empty_like(times_E)
    starts_E[order] = ordered_E[begins_E][np.cumsum(begins_E) - 1]
    return starts_E


def _codes(values: pa.ChunkedArray) -> Ints:
    """Return a number for each distinct value [E], -1 for none."""
    encoded = values.combine_chunks().dictionary_encode()
    codes: Ints = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
