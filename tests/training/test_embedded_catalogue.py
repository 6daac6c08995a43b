"""A catalogue embedded in blocks: by one process, by workers one of whom is killed, and with more items."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.ray_session import ray_session
from shards.bundle import open_bundle
from shards.catalogue import open_items
from shards.errors import CorruptBundle, InvalidInput
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.release import ModelVersion
from shards.servable import open_servable
from shards.two_tower import TwoTower
from tests.shards import bundles
from tests.training.catalogue_slice import KNOWN, MODEL, RADIUS, context, real_items, write_model
from training.embedded_catalogue import CatalogueJob, EmbeddedCatalogue, embed_catalogue
from training.workers import Done, Workers

BLOCK = 256


@pytest.fixture(scope="module")
def items() -> pa.Table:
    return real_items()


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, items: pa.Table) -> Path:
    """The model alone."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, items)
    return root


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, items: pa.Table
) -> tuple[CatalogueJob, EmbeddedCatalogue]:
    """Everything by this process alone."""
    job = job_in(tmp_path_factory.mktemp("undisturbed"), models_dir, items)
    return job, embed_catalogue(job)


def job_in(root: Path, models_dir: Path, items: pa.Table, workers: int = 0) -> CatalogueJob:
    shutil.copytree(models_dir, root / "models")
    # Groups that end where blocks do not.
    pq.write_table(items, root / "items.parquet", row_group_size=1000)
    return CatalogueJob(
        source=MODEL,
        items=root / "items.parquet",
        models_dir=root / "models",
        folder=root / "blocks",
        partitions=2,
        block_items=BLOCK,
        workers=workers,
    )


def digests(root: Path, made: tuple[ModelVersion, ...]) -> dict[str, str]:
    """Return a digest of every file of the bundles."""
    return {
        f"{bundle}/{name}": digest.sha256
        for bundle in made
        for name, digest in open_bundle(root / bundle.model / bundle.version).manifest.files.items()
    }


def opened(job: CatalogueJob, bundle: ModelVersion) -> TwoTower:
    engine = open_servable(open_bundle(job.models_dir / bundle.model / bundle.version), "cpu")
    assert isinstance(engine, TwoTower)
    return engine


def test_partitions_hold_all_items_and_answer_their_goldens(
    undisturbed: tuple[CatalogueJob, EmbeddedCatalogue], items: pa.Table
) -> None:
    job, made = undisturbed
    assert (made.items, made.blocks) == (len(items), -(-len(items) // BLOCK))
    assert made.blocks_embedded == made.blocks
    assert [str(bundle) for bundle in made.bundles] == [
        f"gifts-embedding.{i}-of-2@{made.model.version}" for i in range(2)
    ]
    rows = []
    for bundle in made.bundles:
        path = open_bundle(job.models_dir / bundle.model / bundle.version)
        replay(open_servable(path, "cpu"), read_golden(path.file(GOLDEN_FILE)), 0.0, 0.0)
        assert opened(job, bundle).radius == RADIUS
        held = open_items(path)
        assert held.catalogue_rows is not None
        ids = items.column("item_id").take(pa.array(held.catalogue_rows)).to_pylist()
        assert list(held.item_ids) == ids
        rows += held.catalogue_rows.tolist()
    assert sorted(rows) == list(range(len(items)))


def test_items_of_the_model_have_the_vectors_that_it_has_of_them(
    undisturbed: tuple[CatalogueJob, EmbeddedCatalogue], items: pa.Table
) -> None:
    """Also searches are encoded as by the model: histories name items by their row there."""
    job, made = undisturbed
    whole, known = opened(job, MODEL), items.column("item_id").to_pylist()[:KNOWN]
    asking = context("red mug", *known[10:14])
    expected = whole.retrieve(asking, KNOWN, (), (), 0)
    scores = dict(zip(expected.item_ids, expected.columns["score"].tolist(), strict=True))
    met = 0
    for bundle in made.bundles:
        answer = opened(job, bundle).retrieve(asking, len(items), (), (), 0)
        for item_id, score in zip(answer.item_ids, answer.columns["score"].tolist(), strict=True):
            if item_id in scores:
                met += 1
                assert score == pytest.approx(scores[item_id], abs=1e-5)
    assert met == KNOWN


def test_one_partition_is_a_whole_bundle(
    undisturbed: tuple[CatalogueJob, EmbeddedCatalogue], items: pa.Table
) -> None:
    job, _ = undisturbed
    made = embed_catalogue(replace(job, partitions=1))
    assert made.blocks_embedded == 0
    (bundle,) = made.bundles
    assert bundle.model == MODEL.model
    assert len(opened(job, bundle).items) == len(items)


def test_only_blocks_with_other_items_are_embedded_again(
    tmp_path: Path, models_dir: Path, items: pa.Table
) -> None:
    job = job_in(tmp_path, models_dir, items.slice(0, 3 * BLOCK + 10))
    first = embed_catalogue(job)
    pq.write_table(items.slice(0, 3 * BLOCK + 20), job.items)
    second = embed_catalogue(job)
    assert (first.blocks_embedded, second.blocks_embedded) == (4, 1)
    assert first.model.version != second.model.version
    assert len(list(job.folder.iterdir())) == 2 * 4
    assert embed_catalogue(job).bundles_written == 0


@pytest.mark.cluster
def test_a_worker_that_is_killed_loses_no_block(
    undisturbed: tuple[CatalogueJob, EmbeddedCatalogue], models_dir: Path, items: pa.Table, tmp_path: Path
) -> None:
    job = job_in(tmp_path, models_dir, items, workers=2)
    heard: list[Done] = []
    finished: dict[Path, int] = {}

    def kill_once(done: Done) -> None:
        heard.append(done)
        if len(heard) == 4:
            finished.update({path: path.stat().st_mtime_ns for path in job.folder.glob("*.npz")})
            os.kill(done.pid, signal.SIGKILL)

    with ray_session("", 2):
        made = embed_catalogue(job, on_done=kill_once)
    by_itself, expected = undisturbed
    assert made == replace(expected, bundles_written=2)
    assert digests(job.models_dir, made.bundles) == digests(by_itself.models_dir, expected.bundles)
    assert len({done.pid for done in heard[: made.blocks]}) == 3
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert sorted(done.index for done in heard[: made.blocks]) == list(range(made.blocks))


def test_a_run_that_is_killed_goes_on_with_what_is_missing(
    undisturbed: tuple[CatalogueJob, EmbeddedCatalogue], models_dir: Path, items: pa.Table, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(done: Done) -> None:
        if done.index == 5:
            raise Killed

    job = job_in(tmp_path, models_dir, items)
    with pytest.raises(Killed):
        embed_catalogue(job, on_done=kill)
    made = embed_catalogue(job)
    by_itself, expected = undisturbed
    assert made.blocks_embedded == made.blocks - 6
    assert digests(job.models_dir, made.bundles) == digests(by_itself.models_dir, expected.bundles)


def test_what_cannot_be_embedded_is_refused(tmp_path: Path, models_dir: Path, items: pa.Table) -> None:
    job = job_in(tmp_path, models_dir, items.slice(0, 300))
    pq.write_table(items.slice(0, 300).select(["item_id"]), job.items)
    with pytest.raises(InvalidInput, match="no column 'title', which the tower reads"):
        embed_catalogue(job)
    pq.write_table(pa.concat_tables([items.slice(0, 5), items.slice(0, 5)]), job.items)
    with pytest.raises(CorruptBundle, match="holds an item twice"):
        embed_catalogue(job)
    pq.write_table(items.slice(0, 1), job.items)
    with pytest.raises(InvalidInput, match="would hold none of the 1 items"):
        embed_catalogue(job)
    bundles.write_two_tower(job.models_dir, bundles.seeded_words())
    with pytest.raises(InvalidInput, match="two_tower@1 has no item tower"):
        embed_catalogue(replace(job, source=ModelVersion("two_tower", "1"), folder=tmp_path / "other"))
    with pytest.raises(InvalidInput, match="partitions"):
        replace(job, partitions=0)


def test_tasks_are_done_in_this_process_where_there_are_no_workers() -> None:
    heard: list[Done] = []
    seen: list[str] = []
    alone = Workers(0)
    alone.do_all(lambda: seen.append, ["a", "b"], heard.append)
    assert (seen, [done.pid for done in heard]) == (["a", "b"], [os.getpid()] * 2)
