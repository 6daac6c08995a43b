import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.bundle import open_bundle, write_bundle
from shards.errors import (
    BundleError,
    CorruptBundle,
    InvalidInput,
    MismatchedBundle,
    NotOwner,
    Unavailable,
)
from shards.golden import Golden, golden_of, read_golden, write_golden
from shards.release import ModelVersion, Stage
from shards.replica import ReplicaState
from shards.residency import Residency
from shards.stages import Retriever, Servable
from tests.shards.bundles import RELEASE, VERSION, context, manifest, write_items

LEXICAL = ModelVersion("lexical", VERSION)
RANKER = ModelVersion("ranker", VERSION)


@pytest.fixture
def residency() -> Residency:
    return Residency(device="cpu")


def taken(residency: Residency, model: ModelVersion, stage: Stage) -> Servable | None:
    """Return what answers, as a request that ends at once."""
    servable = residency.take(model, stage)
    residency.give(model, answered=servable is not None)
    return servable


def check_serves(residency: Residency, model: ModelVersion = LEXICAL) -> None:
    servable = taken(residency, model, Stage.RETRIEVAL)
    assert isinstance(servable, Retriever)
    assert servable.retrieve(context("red mug"), 1, (), (), 0).item_ids == ("item-100",)


def copied(models: Path, name: str, root: Path) -> Path:
    return Path(shutil.copytree(models / name / VERSION, root / name / VERSION))


def test_every_bundle_of_a_release_loads_and_serves(residency: Residency, models: Path) -> None:
    for model, stage in RELEASE.models().items():
        replica = residency.load(model, models / model.model / model.version)
        assert (replica.model, replica.stage, replica.state) == (model, stage, ReplicaState.READY)
        assert replica.memory_bytes > 0
        assert replica.load_time_ms > 0
        assert replica.error == ""
        assert taken(residency, model, stage)
    assert [replica.model for replica in residency.replicas()] == sorted(RELEASE.models())


def test_loading_again_changes_nothing(residency: Residency, models: Path) -> None:
    first = residency.load(LEXICAL, models / "lexical" / VERSION)
    servable = taken(residency, LEXICAL, Stage.RETRIEVAL)
    assert residency.load(LEXICAL, models / "lexical" / VERSION) is first
    assert taken(residency, LEXICAL, Stage.RETRIEVAL) is servable


def test_two_loads_at_once_load_once(residency: Residency, models: Path) -> None:
    barrier = threading.Barrier(4)

    def load() -> object:
        barrier.wait(timeout=10)
        return residency.load(LEXICAL, models / "lexical" / VERSION)

    with ThreadPoolExecutor(4) as pool:
        replicas = [future.result(timeout=60) for future in [pool.submit(load) for _ in range(4)]]
    assert len({id(replica) for replica in replicas}) == 1


def test_what_is_not_held_is_not_owned(residency: Residency) -> None:
    with pytest.raises(NotOwner, match="'lexical@1' is not held here") as caught:
        taken(residency, LEXICAL, Stage.RETRIEVAL)
    assert (caught.value.owner, caught.value.generation) == ("", 0)


def test_what_was_let_go_names_its_owner_until_it_is_back(residency: Residency, models: Path) -> None:
    residency.load(LEXICAL, models / "lexical" / VERSION)
    in_flight = taken(residency, LEXICAL, Stage.RETRIEVAL)
    residency.unload(LEXICAL, owner="shard-1", generation=7)
    with pytest.raises(NotOwner) as caught:
        taken(residency, LEXICAL, Stage.RETRIEVAL)
    assert (caught.value.owner, caught.value.generation) == ("shard-1", 7)
    assert residency.replicas() == ()
    assert isinstance(in_flight, Retriever)
    assert len(in_flight.retrieve(context(), 3, (), (), 0)) == 3
    residency.load(LEXICAL, models / "lexical" / VERSION)
    check_serves(residency)


def test_letting_go_of_what_is_not_held_is_no_error(residency: Residency) -> None:
    residency.unload(LEXICAL)
    assert residency.replicas() == ()


def test_another_stage_is_the_callers_mistake(residency: Residency, models: Path) -> None:
    residency.load(LEXICAL, models / "lexical" / VERSION)
    with pytest.raises(InvalidInput, match="lexical@1 serves retrieval, not ranking"):
        taken(residency, LEXICAL, Stage.RANKING)


def check_refused(residency: Residency, path: Path, model: ModelVersion, error: type[BundleError]) -> str:
    with pytest.raises(error) as caught:
        residency.load(model, path)
    (replica,) = [replica for replica in residency.replicas() if replica.model == model]
    assert replica.state is ReplicaState.FAILED
    assert replica.error == str(caught.value)
    with pytest.raises(Unavailable, match=f"{model} is failed here"):
        taken(residency, model, replica.stage)
    return caught.value.file


def test_a_corrupt_version_is_refused_and_the_old_one_serves_on(
    residency: Residency, models: Path, tmp_path: Path
) -> None:
    residency.load(LEXICAL, models / "lexical" / VERSION)
    path = copied(models, "ranker", tmp_path)
    program = path / "scorer.pt2"
    program.write_bytes(program.read_bytes()[:-1])
    assert check_refused(residency, path, RANKER, CorruptBundle) == "scorer.pt2"
    check_serves(residency)


def test_a_failed_bundle_may_be_loaded_again_once_it_is_whole(
    residency: Residency, models: Path, tmp_path: Path
) -> None:
    path = copied(models, "lexical", tmp_path)
    items = (path / "items.parquet").read_bytes()
    (path / "items.parquet").write_bytes(items[:-4] + b"spam")
    assert check_refused(residency, path, LEXICAL, CorruptBundle) == "items.parquet"
    (path / "items.parquet").write_bytes(items)
    assert residency.load(LEXICAL, path).state is ReplicaState.READY
    check_serves(residency)


def test_a_bundle_of_another_name_is_refused(residency: Residency, models: Path) -> None:
    other = ModelVersion("lexical", "2")
    assert check_refused(residency, models / "lexical" / VERSION, other, MismatchedBundle) == "manifest.json"


def test_a_folder_without_a_manifest_is_refused_and_leaves_no_trace(
    residency: Residency, tmp_path: Path
) -> None:
    with pytest.raises(CorruptBundle, match=r"manifest\.json: cannot be read"):
        residency.load(LEXICAL, tmp_path)
    assert residency.replicas() == ()


def regolden(models: Path, root: Path, change: Callable[[Golden], Golden]) -> Path:
    """Return a copy of the lexical bundle with other goldens."""
    original = models / "lexical" / VERSION

    def fill(folder: Path) -> None:
        write_items(folder)
        write_golden(folder / "golden.npz", change(read_golden(original / "golden.npz")))

    return write_bundle(root, open_bundle(original).manifest, fill)


def one_percent_more(golden: Golden) -> Golden:
    return replace(golden, scores=tuple({"score": s["score"] * np.float32(1.01)} for s in golden.scores))


def none(_: Golden) -> Golden:
    return golden_of([], [])


@pytest.mark.parametrize("change", [one_percent_more, none])
def test_a_replica_serves_only_after_its_goldens_matched(
    residency: Residency, models: Path, tmp_path: Path, change: Callable[[Golden], Golden]
) -> None:
    path = regolden(models, tmp_path, change)
    assert check_refused(residency, path, LEXICAL, MismatchedBundle) == "golden.npz"


def test_a_bundle_without_goldens_is_refused(residency: Residency, tmp_path: Path) -> None:
    path = write_bundle(tmp_path, manifest("lexical", Stage.RETRIEVAL, "lexical"), write_items)
    assert check_refused(residency, path, LEXICAL, MismatchedBundle) == "golden.npz"


def test_others_serve_while_one_loads(residency: Residency, models: Path) -> None:
    residency.load(LEXICAL, models / "lexical" / VERSION)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(residency.load, RANKER, models / "ranker" / VERSION)
        answered = 0
        while not loading.done() or not answered:
            check_serves(residency)
            answered += 1
        assert loading.result().state is ReplicaState.READY
