"""How good rankings are: recipes trained from nothing and measured by the protocols of the data directory.

`python -m tests.bench.quality [--only NAME …]` runs the parts of that name, all without one; each trains into
a folder of its own and ranks the test split in one process. `make bench-quality` needs HEADRACE_DATA_DIR.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.folders import cache_dir
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from tests.bench import quality_negatives, sequences
from tests.bench.quality_cross_shop import cross_shop
from tests.bench.quality_deep_retrieval import deep_retrieval
from tests.bench.quality_hydration import hydration
from tests.bench.quality_neural_cf import neural_cf
from tests.bench.result import Check, at_least, publish
from training.datasets import sources
from training.evaluation.baselines import NEXT_BASELINES
from training.evaluation.next_items import next_items, recommend, summary
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.recipes import RECIPES
from training.trainer import ignore

Part = Callable[[Path], tuple[dict[str, Any], list[Check]]]
"""Returns figures and checks; the path is the data directory."""


def next_purchase(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """Protocol B: next purchase of what was never bought. Nothing in it is random, so one run tells all."""
    recipe = RECIPES["online_retail_next"]
    data = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        workspace, started = Workspace(Path(folder)), time.perf_counter()
        trained = train_release(recipe, data, workspace, TrainingOptions(), ignore)
        seconds = time.perf_counter() - started
        asked = next_items(data, "test", history_limit=trained.release.history_limit)
        lists = recommend(open_cascade(trained.release, workspace.models_dir), asked)
    rankings = {name: asdict(figures) for name, figures in summary(asked, lists).items()}
    best = rankings[HYBRID]
    figures = {
        "users": len(asked),
        "training_s": round(seconds, 1),
        "weights": {channel.name: channel.weight for channel in trained.release.channels},
        "valid": dict(trained.figures),
        "rankings": rankings,
        "other_libraries": [asdict(line) for line in NEXT_BASELINES[data.name]],
    }
    return figures, [
        at_least("next purchase, users", len(asked), 1_367),
        at_least("next purchase, merged, NDCG@20", best["ndcg_20"], 0.135),
        at_least("next purchase, merged, HR@20", best["hit_rate_20"], 0.70),
        at_least("next purchase, merged, Recall@20", best["recall_20"], 0.105),
    ]


def log_q(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """LogQ correction against none, by one seed."""
    return sequences.log_q(data_dir, seeds=1)


PARTS: Mapping[str, Part] = {
    "cross_shop": cross_shop,
    "deep_retrieval": deep_retrieval,
    "hydration": hydration,
    "log_q": log_q,
    "negatives": quality_negatives.negatives,
    "neural_cf": neural_cf,
    "next_purchase": next_purchase,
    "trainings": quality_negatives.trainings,
}


def main() -> int:
    """Run the parts; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="repeatable")
    chosen = parser.parse_args().only or list(PARTS)
    if "HEADRACE_DATA_DIR" not in os.environ:
        parser.error("HEADRACE_DATA_DIR must name the folder of the data sets")
    data_dir = Path(os.environ["HEADRACE_DATA_DIR"])
    figures: dict[str, Any] = {}
    checks: list[Check] = []
    for name in chosen:
        figures[name], found = PARTS[name](data_dir)
        checks += found
    publish("quality", settings={"only": chosen}, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
