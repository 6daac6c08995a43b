"""Arrays whose entries lie group after group: group `g` has those from starts[g] to starts[g + 1]."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def entries_of(starts: Ints, groups: Ints) -> tuple[Ints, Ints]:
    """Return where the entries of some groups are, group after group, and how many each has."""
    counts = starts[groups + 1] - starts[groups]
    ends = np.cumsum(counts)
    # Each group's start, then on by one.
    return np.arange(int(counts.sum())) + np.repeat(starts[groups] - (ends - counts), counts), counts
