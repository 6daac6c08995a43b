"""Quality of the whole cascade through a running cluster, and what training it takes: `make bench-cascade`.

Trains both recipes, starts a cluster with each, and asks the held-out queries in one process and
through the router; releases of a recipe with `refresh_days` are refreshed as often on the way. online_retail,
whose published baselines are the yardstick, runs where HEADRACE_DATA_DIR is set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from tests.bench.result import Check, at_least, at_most, publish
from tests.deploy.running_cluster import headrace, running_cluster
from training.evaluation.baselines import BASELINES
from training.evaluation.report import HYBRID, RANKED
from training.recipes import RECIPES

DEMO, SHOP = "movielens", "online_retail"
TRAINING_AIM_S = 180.0
TO_BEAT = ("BM25, title, stemmed", "BM25, title + code, fuzzy", "RRF of BM25 and MiniLM")
"""The published lines that the cascade must beat; the others are context, and in the file."""

Row = dict[str, Any]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=0, help="test queries of each data set; 0 takes all")
    options = parser.parse_args()
    recipes = [DEMO, *([SHOP] if os.environ.get("HEADRACE_DATA_DIR") else [])]
    if SHOP not in recipes:
        sys.stderr.write(f"HEADRACE_DATA_DIR is not set: {SHOP} is left out\n")
    figures, checks = {}, []
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        for recipe in recipes:
            figures[recipe] = measure(recipe, Workspace(Path(folder) / recipe), options.limit)
            checks += checks_of(recipe, figures[recipe])
    publish("cascade", settings={"recipes": recipes, "limit": options.limit}, figures=figures, checks=checks)


def measure(recipe: str, workspace: Workspace, limit: int) -> Row:
    """Return how long training took and everything that `headrace eval --json` says."""
    started = time.perf_counter()
    _run("train", recipe, "--workspace", str(workspace.root))
    training_s = time.perf_counter() - started
    days = RECIPES[recipe].refresh_days
    refreshed = ("--refresh-days", str(days)) if days else ()
    with running_cluster(workspace):
        options = ("--limit", str(limit), "--online", "up", *refreshed, "--json")
        found = _run("eval", "--workspace", str(workspace.root), *options)
    return {"training_s": training_s, "refresh_days": days, "evaluation": json.loads(found)}


def checks_of(recipe: str, figures: Row) -> list[Check]:
    """Return the checks of one recipe: the cascade against its parts and, where there are any, baselines."""
    evaluation = figures["evaluation"]
    rows = {row["ranking"]: row["overall"] for row in evaluation["online"]}
    cascade, hybrid = rows[RANKED], rows[HYBRID]
    checks = [
        at_least(
            f"{recipe}: NDCG@10 through the cluster, against its own hybrid",
            cascade["ndcg_10"],
            round(hybrid["ndcg_10"], 4),
        ),
        at_least(f"{recipe}: rankings that agree online and offline", float(evaluation["agree"]), 1.0),
    ]
    if recipe == DEMO:
        checks.append(at_most(f"{recipe}: training", figures["training_s"], TRAINING_AIM_S, "s"))
    for line in (line for line in BASELINES.get(recipe, ()) if line.ranking in TO_BEAT):
        checks.append(at_least(f"{recipe}: NDCG@10 against {line.ranking}", cascade["ndcg_10"], line.ndcg_10))
        checks.append(
            at_least(f"{recipe}: R@100 against {line.ranking}", cascade["recall_100"], line.recall_100)
        )
    return checks


def _run(*arguments: str) -> str:
    """Return the standard output of a `headrace` command; its progress goes to this one's standard error."""
    done = subprocess.run(
        headrace(*arguments), cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    # `headrace eval` ends with 1 when online and offline disagree; its figures are wanted all the same.
    if done.returncode and not done.stdout:
        raise SystemExit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
