"""How good rankings are: recipes trained from nothing and measured by the protocols of the data directory.

`python -m tests.bench.quality [--only NAME …] [--quick] [--seeds N]` runs the parts of that name, all without
one; each trains into a folder of its own and ranks the test split in one process. With --quick most run on
little data and by one seed, to see that they run. `make bench-quality` needs HEADRACE_DATA_DIR.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.data_dir import data_dir
from tests.bench.quality_clusters import clusters
from tests.bench.quality_cross_shop import cross_shop
from tests.bench.quality_deep_retrieval import deep_retrieval
from tests.bench.quality_diversity import diversity
from tests.bench.quality_ensemble import ensemble
from tests.bench.quality_glmix import glmix
from tests.bench.quality_hard_negatives import hard_negatives
from tests.bench.quality_hydration import hydration
from tests.bench.quality_item_pairs import item_vectors
from tests.bench.quality_location import location
from tests.bench.quality_log_q import log_q
from tests.bench.quality_medoids import medoids
from tests.bench.quality_negatives import negatives, trainings
from tests.bench.quality_neural_cf import neural_cf
from tests.bench.quality_next_item import next_item
from tests.bench.quality_next_purchase import next_purchase
from tests.bench.quality_peers import peers
from tests.bench.quality_query_heads import query_heads
from tests.bench.quality_retrieval import retrieval
from tests.bench.quality_run import Part, QualityRun
from tests.bench.quality_staleness import staleness
from tests.bench.quality_unified import unified
from tests.bench.quality_updates import updates
from tests.bench.quality_views import self_supervised
from tests.bench.result import Check, publish


def _of_one_size(part: Callable[[Path], tuple[dict[str, Any], list[Check]]]) -> Part:
    """Return a part that chooses its own seeds and runs on as much data with --quick as without."""
    return lambda run: part(run.data_dir)


PARTS: Mapping[str, Part] = {
    "clusters": clusters,
    "cross_shop": cross_shop,
    "deep_retrieval": deep_retrieval,
    "diversity": diversity,
    "ensemble": _of_one_size(ensemble),
    "glmix": glmix,
    "hard_negatives": hard_negatives,
    "hydration": hydration,
    "item_pairs": item_vectors,
    "location": location,
    "log_q": log_q,
    "medoids": medoids,
    "negatives": _of_one_size(negatives),
    "neural_cf": neural_cf,
    "next_item": next_item,
    "next_purchase": next_purchase,
    "peers": peers,
    "query_heads": query_heads,
    "retrieval": retrieval,
    "self_supervised": _of_one_size(self_supervised),
    "staleness": staleness,
    "trainings": _of_one_size(trainings),
    "unified": unified,
    "updates": updates,
}


def main() -> int:
    """Run the parts; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="repeatable")
    parser.add_argument("--quick", action="store_true", help="little data, one seed")
    parser.add_argument("--seeds", type=int, default=0, help="0: three, or one with --quick")
    options = parser.parse_args()
    chosen = options.only or list(PARTS)
    run = QualityRun(
        data_dir=data_dir(parser),
        seeds=options.seeds or (1 if options.quick else 3),
        quick=options.quick,
    )
    figures: dict[str, Any] = {}
    checks: list[Check] = []
    for name in chosen:
        figures[name], found = PARTS[name](run)
        checks += found
    settings = {"only": chosen, "seeds": run.seeds, "quick": run.quick}
    publish("quality", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
