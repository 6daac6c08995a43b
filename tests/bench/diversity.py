"""What diversity costs a router, on one core: `make bench-diversity` writes `build/bench/diversity.json`.

Titles of six words of a vocabulary of 500, a brand of twenty, two quotas and similarity by title.
"""

import random
import sys
import time

import numpy as np

from shards.candidates import Candidates
from shards.diversity import AttributeQuota, Diversity, diversified
from tests.bench.result import at_most, publish

WINDOWS, PAGE = (50, 200, 500), 10
AIM_MS = 5.0
REPEATS = 200


def times_ms(window: int) -> list[float]:
    """Return the processor time of each of many pages whose first `window` items are put in another order."""
    drawn = random.Random(0)
    diversity = Diversity(
        relevance=0.8,
        attributes=("title",),
        quotas=(
            AttributeQuota(attribute="brand", at_most=3),
            AttributeQuota(attribute="title", at_most=1, within=20),
        ),
        candidates=window,
    )
    item_ids = tuple(f"item-{row}" for row in range(window))
    candidates = Candidates(
        item_ids=item_ids,
        columns={f"column-{c}": np.zeros(window, np.float32) for c in range(20)},
    )
    took = []
    for _ in range(REPEATS):
        texts = {
            item_id: {
                "title": " ".join(f"word{drawn.randrange(500)}" for _ in range(6)),
                "brand": f"brand {drawn.randrange(20)}",
            }
            for item_id in item_ids
        }
        started = time.thread_time()
        diversified(candidates, texts, diversity, size=PAGE)
        took.append(1000 * (time.thread_time() - started))
    return took


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    figures = {}
    for window in WINDOWS:
        p50, p99 = np.quantile(times_ms(window), [0.5, 0.99])
        figures[str(window)] = {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
    checks = [at_most("50 items put in another order, p50", figures["50"]["p50_ms"], AIM_MS, "ms")]
    publish("diversity", settings={"repeats": REPEATS, "page": PAGE}, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
