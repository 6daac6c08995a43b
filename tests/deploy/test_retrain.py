"""`headrace retrain`: effects fitted anew by a schedule, checked, released, and live while it is searched."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deploy.release_files import read_release, write_release
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from router.client import HeadraceClient, SearchResult
from router.router_config import RouterConfig
from router.router_server import Router
from shards.bundle import open_bundle, read_manifest
from shards.errors import InvalidInput, NotFound, Refused
from shards.manifest import Manifest
from shards.release import Release
from tests.deploy.commands import Ran, headrace
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.training.movielens_slice import real_slice
from training.datasets import parquet
from training.datasets.splits import known_until_ms
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset, timestamps_ms
from training.overrides import with_overrides
from training.recipes import RECIPES
from training.trainer import ignore

RECIPE = "movielens_glmix"
SURFACE = RECIPES[RECIPE].surface
QUICK = (
    "glmix.fit.choose=false",
    "glmix.fit.fixed_l2=100",
    "glmix.fit.user_l2=30",
    "glmix.fit.item_l2=30",
)
KNOWN_DAYS = 30


@dataclass(frozen=True)
class Shop:
    """A workspace with a release of the last month before the test, and the data with what came later."""

    workspace: Workspace
    test_ms: int

    def retrain(self, days: float, *options: str, data: str = "data", **schedule: Any) -> Ran:
        return headrace(*self.arguments(days, data=data, **schedule), *options)

    def arguments(self, days: float, *, data: str = "data", **schedule: Any) -> Sequence[str]:
        until = datetime.fromtimestamp(self.test_ms / 1000 + days * DAY_MS / 1000, UTC).isoformat()
        root = self.workspace.root
        file = root / "schedule.toml"
        lines = [f'recipe = "{RECIPE}"', f'dataset = "{root / data}"']
        lines += [f"deploy = {str(schedule.pop('deploy', False)).lower()}"]
        quality = {"least_labels": 50, "most_log_loss_rise": 0.05, "most_auc_drop": 0.05} | schedule
        lines += ["[quality]", *(f"{name} = {value}" for name, value in quality.items())]
        file.write_text("\n".join(lines) + "\n")
        return ("retrain", str(file), "--workspace", str(root), "--until", until)

    def release(self) -> Release:
        return read_release(self.workspace, SURFACE)

    def manifest(self) -> Manifest:
        """Return that of the ranker which the workspace's release pins."""
        ranker = self.release().ranker
        assert ranker
        return read_manifest(self.workspace.models_dir / ranker.model.model / ranker.model.version)

    def journal(self) -> list[dict[str, str]]:
        path = self.workspace.retraining_dir / f"{SURFACE}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def bundles(self) -> list[Path]:
        return sorted(path for path in self.workspace.models_dir.glob("*/*") if path.parent.name[0] != ".")


def recent(dataset: Dataset, since_ms: int) -> Dataset:
    """Return the dataset without what came before."""

    def kept(table: pa.Table) -> pa.Table:
        return table.filter(pa.array(timestamps_ms(table) >= since_ms))

    return replace(dataset, events=kept(dataset.events), queries=kept(dataset.queries))


def misled(dataset: Dataset, since_ms: int, until_ms: int) -> Dataset:
    """Return the dataset with likes and dislikes exchanged in all but the newest third of a time."""
    times_ms = timestamps_ms(dataset.events)
    inside = times_ms[(times_ms >= since_ms) & (times_ms < until_ms)]
    wrong = (times_ms >= since_ms) & (times_ms < np.quantile(inside, 0.66))
    actions = np.array(dataset.events.column("action").to_pylist(), dtype=object)
    actions[wrong] = np.where(actions[wrong] == "like", "watch", "like")
    at = dataset.events.column_names.index("action")
    return replace(dataset, events=dataset.events.set_column(at, "action", pa.array(actions, pa.string())))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    everything = real_slice(500)
    test_ms = known_until_ms(everything)
    dataset = recent(everything, test_ms - KNOWN_DAYS * DAY_MS)
    workspace = Workspace(tmp_path_factory.mktemp("retrained"))
    recipe = with_overrides(RECIPES[RECIPE], QUICK)
    options = TrainingOptions(version="first", settings=QUICK)
    trained = train_release(recipe, dataset, workspace, options, ignore)
    # A busy machine may be slow; that is no failure of the release.
    write_release(workspace, replace(trained.release, retrieval_budget_ms=3_000))
    parquet.save(dataset, workspace.root / "data")
    parquet.save(misled(dataset, test_ms, test_ms + 4 * DAY_MS), workspace.root / "misled")
    return Shop(workspace, test_ms)


@pytest.fixture
def shop(first: Shop) -> Shop:
    """Return the shop as it was when it was trained."""
    release = first.release()
    assert release.ranker
    ranker = replace(release.ranker, model=replace(release.ranker.model, version="first"))
    write_release(first.workspace, replace(release, version="first", ranker=ranker, as_of_ms=first.test_ms))
    return first


def test_effects_are_fitted_when_they_are_due_and_released(shop: Shop) -> None:
    early = shop.retrain(0.5)
    assert early.code == 0, early.error
    assert "nothing is due before" in early.err
    assert shop.release().version == "first"

    daily = shop.retrain(3, "--version", "daily")
    assert daily.code == 0, daily.error
    assert daily.out == f"{SURFACE} daily\n"
    manifest = shop.manifest()
    assert (manifest.version, manifest.full_version) == ("daily", "first")
    assert manifest.training_range
    assert manifest.training_range.end_ms == shop.test_ms + 3 * DAY_MS
    assert shop.release().as_of_ms == shop.test_ms + 3 * DAY_MS
    assert set(QUICK) <= set(manifest.settings)
    assert fixed_effect(shop, "daily") == fixed_effect(shop, "first")
    assert effects(shop, "daily") != effects(shop, "first")

    weekly = shop.retrain(8, "--version", "weekly")
    assert weekly.code == 0, weekly.error
    assert "Fitted all effects" in weekly.err
    assert shop.manifest().full_version == ""
    assert fixed_effect(shop, "weekly") != fixed_effect(shop, "first")
    assert [line["decision"] for line in shop.journal()][-2:] == ["released", "released"]


def fixed_effect(shop: Shop, version: str) -> list[float]:
    return _parameter(shop, version, "item_weight_I")


def effects(shop: Shop, version: str) -> list[float]:
    return _parameter(shop, version, "user_effect_MF")


def _parameter(shop: Shop, version: str, name: str) -> list[float]:
    bundle = open_bundle(shop.workspace.models_dir / f"{SURFACE}-ranker" / version)
    values: list[float] = np.load(bundle.file("parameters.npz"))[name].ravel().tolist()
    return values


def test_effects_that_foretell_worse_are_refused_unless_somebody_says_why(shop: Shop) -> None:
    before, strict = shop.bundles(), {"most_log_loss_rise": 0.0, "most_auc_drop": 0.0}
    refused = shop.retrain(4, data="misled", held_out=0.3, **strict)
    assert isinstance(refused.error, Refused)
    assert refused.error.reason == "WORSE_RELEASE"
    assert "foretells worse than movielens-glmix@first: on the newest" in str(refused.error)
    assert (shop.bundles(), shop.release().version) == (before, "first")
    assert shop.journal()[-1]["decision"] == "refused"

    reason = ("--override-reason", "likes were exchanged on purpose", "--version", "overridden")
    forced = shop.retrain(4, *reason, data="misled", held_out=0.3, **strict)
    assert forced.code == 0, forced.error
    assert shop.release().version == "overridden"
    quality = shop.release().quality
    assert quality
    assert (quality.live_version, quality.override_reason) == ("first", "likes were exchanged on purpose")
    assert "log_loss" in {measure.name for measure in quality.worse}
    last = shop.journal()[-1]
    assert (last["decision"], last["override_reason"]) == ("overridden", "likes were exchanged on purpose")


def test_what_cannot_be_retrained_says_so_and_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    before = shop.bundles()
    few = shop.retrain(3, least_labels=1_000_000)
    assert few.code == 0
    assert "labels became known since movielens-glmix@first, and 1000000 are needed" in few.err
    assert "is before the moment" in str(shop.retrain(-1).error)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('recipe = "movielens_glmix"\n[quality]\nheld_out = 2\n')
    for text, problem in (
        ('recipe = "movielens_glmix"\n[quality]\nheld_out = 2\n', "quality.held_out must be a share"),
        ('recipe = "movielens_glmix"\nevery = 2\n', "every"),
        ("recipe = ", "wrong.toml"),
    ):
        wrong.write_text(text)
        error = headrace("retrain", str(wrong)).error
        assert isinstance(error, InvalidInput)
        assert problem in str(error)
    wrong.write_text(f'recipe = "{RECIPE}"\ndataset = "{shop.workspace.root / "data"}"\n')
    assert isinstance(headrace("retrain", str(wrong), "--workspace", str(tmp_path)).error, NotFound)
    assert (shop.bundles(), shop.release().version) == (before, "first")


def test_a_run_that_is_killed_leaves_the_release_as_it_was(shop: Shop) -> None:
    before, release = shop.bundles(), shop.release()
    command = [sys.executable, "-m", "deploy.cli", *shop.arguments(3), "--version", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: any(shop.workspace.models_dir.glob(".training-*")), process)
    process.kill()
    process.wait()
    assert (shop.bundles(), shop.release()) == (before, release)
    done = shop.retrain(3, "--version", "killed")
    assert done.code == 0, done.error
    assert shop.release().version == "killed"


def test_a_watch_retrains_when_new_events_make_it_due(shop: Shop) -> None:
    """The data is replaced by what came within three days; nothing else tells the watch."""
    root = shop.workspace.root
    everything = parquet.load(root / "data")
    parquet.save(until(everything, shop.test_ms + DAY_MS // 2), root / "early")
    parquet.save(until(everything, shop.test_ms + 3 * DAY_MS), root / "later")
    watched = root / "watched"
    watched.symlink_to("early")
    arguments = [*shop.arguments(0, data="watched")][:-2]
    schedule = Path(arguments[1])
    schedule.write_text(schedule.read_text().replace("deploy =", "check_every_s = 0.1\ndeploy ="))
    log, command = root / "watch.log", [sys.executable, "-m", "deploy.cli", *arguments, "--watch"]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_for(lambda: "nothing is due before" in log.read_text(), process)
        assert shop.release().version == "first"
        (root / "next").symlink_to("later")
        (root / "next").rename(watched)
        wait_for(lambda: shop.release().version != "first", process)
        assert shop.release().version.endswith("-effects")
        assert process.poll() is None, "it goes on"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode in (1, 130)


def until(dataset: Dataset, end_ms: int) -> Dataset:
    events = dataset.events.filter(pa.array(timestamps_ms(dataset.events) < end_ms))
    return replace(dataset, events=events)


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + 120
    while not done():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_cluster_answers_with_what_was_retrained_without_a_pause(shop: Shop) -> None:
    root = shop.workspace.root

    async def main() -> list[SearchResult]:
        async with (
            in_process_shards(root / "state") as host,
            running_controller(root, host) as controller,
        ):
            await controller.deploy(shop.release())
            config = RouterConfig(controller=controller.address, default_deadline_s=5.0, grace_s=0.0)
            async with Router(config) as router:
                await router.ready()
                async with HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client:
                    answers = [await client.search(SURFACE, user_id="1")]
                    done = asyncio.create_task(asyncio.to_thread(live, controller.address))
                    while not done.done():
                        answers.append(await client.search(SURFACE, user_id="1"))
                        await asyncio.sleep(0.02)
                    await done
                    return [*answers, await client.search(SURFACE, user_id="1")]

    def live(controller: str) -> None:
        done = shop.retrain(3, "--version", "live", "--controller", controller, deploy=True)
        assert done.code == 0, done.error

    answers = asyncio.run(main())
    assert all(answer.complete and answer.items for answer in answers)
    assert (answers[0].release, answers[-1].release) == ("first", "live")
    before, after = (
        {item.item_id: item.score for item in answer.items} for answer in (answers[0], answers[-1])
    )
    assert before != after
