"""A part of `make bench-quality`: other libraries on protocol C, trained here beside ours, one after another.

implicit 0.7.2 (item KNN, ALS) and RecBole 1.2.1 (SASRec with cross-entropy) run in an environment of their
own, all on one thread and on the same events: those before the test of the first 3,000 users, as RecBole
takes hours of one core for all of them. RecBole keeps the newest to stop by. Ours is `headrace train
beauty_next`, which trains its transformer twice and a table, and fits their merge.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.next_table import EXCLUDED, KEPT
from deploy.release_files import read_release
from deploy.workspace import Workspace
from tests.bench.peer_libraries import PEERS, Used, peers_python, used_by
from tests.bench.quality_next_item import QUICK_EPOCHS, RECIPE
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check
from tests.bench.spread import spread_of, spread_of_each
from training.datasets import parquet
from training.datasets.amazon_beauty import first_users
from training.datasets.splits import before, known_until_ms
from training.datasets.tables import Dataset, row_numbers, timestamps_ms
from training.evaluation.next_items import (
    NextItems,
    figures_of,
    keeping,
    leaving_out,
    next_items,
    recommend,
    summary,
)
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.recipes import RECIPES

PEER_USERS, QUICK_PEER_USERS = 3_000, 600
RECBOLE_EPOCHS = 50
"""At most: five without a better NDCG@10 end it."""
_HISTORY_LIMIT = 200

Command = Callable[[Path, Path, int], Sequence[str]]
"""From the file of events, the file of lists and the seed."""


def peers(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return quality, training time and peak memory of every peer and of ours; nothing of it has an aim."""
    users = QUICK_PEER_USERS if run.quick else PEER_USERS
    data = first_users(run.load(RECIPES[RECIPE].dataset_name), users)
    asked = next_items(data, "test", history_limit=_HISTORY_LIMIT)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        events = Path(folder) / "events.npz"
        np.savez(events, **events_of(data, asked))
        found = {
            name: _measured(command, data, asked, events, run.seeds)
            for name, command in _commands(run.quick).items()
        }
        ours = {f"headrace {RECIPE}": _ours(run, data, asked, Path(folder))}
    return {"users": len(asked), "seeds": run.seeds, "peers": found, "ours": ours}, []


def events_of(data: Dataset, asked: Sequence[NextItems]) -> dict[str, Any]:
    """Return what was known before the test, in order: users by place in `asked` and items by row [E]."""
    known = before(data.events, known_until_ms(data))
    places = {user.context.user.user_id: place for place, user in enumerate(asked)}
    user_E = np.array([places.get(user_id, -1) for user_id in known.column("user_id").to_pylist()])
    item_E = row_numbers(known.column("item_id"), data.items.column("item_id"))
    order = np.lexsort((timestamps_ms(known), user_E))
    order = order[user_E[order] >= 0]
    return {"user": user_E[order], "item": item_E[order], "items": len(data.items)}


def _commands(quick: bool) -> dict[str, Command]:
    python, epochs = str(peers_python()), str(QUICK_EPOCHS if quick else RECBOLE_EPOCHS)

    def command(file: str, argument: str) -> Command:
        return lambda events, lists, seed: (
            python, str(PEERS / file), argument, str(events), str(lists), str(seed),
        )  # fmt: skip

    return {
        "implicit item KNN, cosine, decay .6": command("implicit_lists.py", "item_knn_cosine"),
        "implicit item KNN, BM25, decay .6": command("implicit_lists.py", "item_knn_bm25"),
        "implicit ALS, 256 factors": command("implicit_lists.py", "als"),
        "RecBole SASRec, cross-entropy": command("recbole_lists.py", epochs),
    }


def _measured(
    command: Command, data: Dataset, asked: Sequence[NextItems], events: Path, seeds: int
) -> dict[str, Any]:
    uses, training_s, figures = [], [], []
    for seed in range(seeds):
        lists = events.with_name("lists.npz")
        uses.append(used_by(command(events, lists, seed), log=events.with_name("log")))
        with np.load(lists) as found:
            training_s.append(float(found["training_s"]))
            figures.append({KEPT: found["kept"], EXCLUDED: found["excluded"]})
    item_ids = data.items.column("item_id").to_pylist()

    def judged(list_QK: Any) -> dict[str, float]:
        return asdict(figures_of(asked, [tuple(item_ids[row] for row in row_K) for row_K in list_QK]))

    quality = {note: spread_of_each([judged(each[note]) for each in figures]) for note in (KEPT, EXCLUDED)}
    return {"training_s": spread_of(training_s), **quality, **_use(uses)}


def _use(uses: Sequence[Used]) -> dict[str, Any]:
    return {f"process_{name}": spread_of([asdict(use)[name] for use in uses]) for name in asdict(uses[0])}


def _ours(run: QualityRun, data: Dataset, asked: Sequence[NextItems], folder: Path) -> dict[str, Any]:
    parquet.save(data, folder / "shop")
    epochs = ("--set", f"sequences.fit.epochs={QUICK_EPOCHS}") if run.quick else ()
    uses, figures = [], []
    for seed in range(run.seeds):
        workspace = Workspace(folder / f"ours-{seed}")
        options = ("--dataset", str(folder / "shop"), "--workspace", str(workspace.root))
        command = (
            sys.executable,
            "-m",
            "deploy.cli",
            "train",
            RECIPE,
            *options,
            *epochs,
            "--seed",
            str(seed),
        )
        uses.append(used_by(command, log=folder / "log"))
        release = read_release(workspace, RECIPES[RECIPE].surface)
        cascade = open_cascade(release, workspace.models_dir)
        kinds = {KEPT: keeping(release), EXCLUDED: leaving_out(release, data)}
        figures.append(
            {
                note: summary(asked, recommend(replace(cascade, release=kind), asked))[HYBRID]
                for note, kind in kinds.items()
            }
        )
    quality = {note: spread_of_each([asdict(each[note]) for each in figures]) for note in (KEPT, EXCLUDED)}
    return {**quality, **_use(uses)}
