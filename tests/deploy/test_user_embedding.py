"""`headrace users embed`: active users get vectors, and searches ask with those."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.ray_session import ray_session
from deploy.release_files import read_release
from deploy.training import TrainingOptions, train_release
from deploy.user_embedding import EmbeddedUsers, UserJob, embed_users, moment_of
from deploy.workspace import Workspace
from router.client import HeadraceClient
from services.lmdb_user_store import LmdbUserStore
from services.user_store_settings import UserStoreSettings
from shards.errors import InvalidInput, Unavailable
from shards.release import ModelVersion
from shards.search_context import RawValue, SearchContext, UserState
from shards.stored_vectors import feature_of
from tests.deploy.commands import headrace
from tests.deploy.small_cluster import serving, write_workspace
from tests.training.beauty_slice import rounds, small
from tests.training.shard_answers import asked
from training.datasets.statistics import DAY_MS
from training.trainer import ignore
from training.workers import Done

SURFACE = "beauty-pinnerformer"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a release that asks with stored vectors, and its users, who have none yet."""
    workspace = Workspace(tmp_path_factory.mktemp("embedded"))
    options = TrainingOptions(version="1")
    train_release(small("pinnerformer", epochs=2), rounds(), workspace, options, ignore)
    return workspace


@pytest.fixture(scope="module")
def model(workspace: Workspace) -> ModelVersion:
    return read_release(workspace, SURFACE).channels[0].model


def users_of(workspace: Workspace, *user_ids: str) -> list[UserState]:
    """Return users as of the release's moment."""
    release = read_release(workspace, SURFACE)
    assert release.as_of_ms is not None

    async def main(store: LmdbUserStore, now_ms: int) -> list[UserState]:
        return [await store.get(user_id, now_ms, release.history_limit) for user_id in user_ids]

    with LmdbUserStore.open(workspace.users_path) as store:
        return asyncio.run(main(store, release.as_of_ms))


def give(workspace: Workspace, user_id: str, feature: str, value: str) -> None:
    with LmdbUserStore.open(workspace.users_path) as store:
        asyncio.run(store.add_features({user_id: {feature: value}}))


def embed(workspace: Workspace, *arguments: str) -> str:
    done = headrace("users", "embed", "--workspace", str(workspace.root), "--workers", "0", *arguments)
    assert done.code == 0, done.error
    return done.out


def test_a_shard_asks_with_the_stored_vector_of_its_own_version(
    workspace: Workspace, model: ModelVersion, tmp_path: Path
) -> None:
    """Somebody with the vector of another user is answered as that one is."""
    release = read_release(workspace, SURFACE)
    assert release.as_of_ms is not None
    one, other = users_of(workspace, "u0", "u5")
    assert embed(workspace, "--block-users", "50") == f"120 users by {model}\n"
    one_after, other_after = users_of(workspace, "u0", "u5")
    name = feature_of(model.model)
    assert one_after.history == one.history
    vector = other_after.features[name]
    assert isinstance(vector, str)
    swapped = replace(one, features={name: vector})
    old = replace(one, features={name: "0" + vector})
    states = (one, other, one_after, swapped, old)
    contexts = [SearchContext(user=user, now_ms=release.as_of_ms) for user in states]
    answers = asked(workspace.models_dir, tmp_path, model, contexts)
    by_one, by_other = answers[:2]
    assert by_one != by_other
    assert answers[2:] == [by_one, by_other, by_one]
    assert not workspace.embedded_users_dir.exists() or not any(workspace.embedded_users_dir.glob("*/*"))


def test_a_search_is_answered_by_what_the_store_holds(workspace: Workspace, model: ModelVersion) -> None:
    embed(workspace)
    name = feature_of(model.model)
    (other,) = users_of(workspace, "u5")
    vector = other.features[name]
    assert isinstance(vector, str)
    give(workspace, "u1", name, vector)
    give(workspace, "u6", name, f"0{vector}")

    async def main() -> list[list[str]]:
        release = replace(read_release(workspace, SURFACE), retrieval_budget_ms=3_000)
        async with (
            serving(workspace.root, release) as address,
            HeadraceClient(address, timeout_s=10.0) as client,
        ):
            answers = [await client.search(SURFACE, user_id=user_id) for user_id in ("u5", "u1", "u6")]
        return [[item.item_id for item in answer.items] for answer in answers]

    by_other, by_given, by_tower = asyncio.run(main())
    assert by_given == by_other
    assert by_tower != by_other, "a vector of another version is not asked with"


def job_of(workspace: Workspace, model: ModelVersion, **changes: object) -> UserJob:
    release = read_release(workspace, SURFACE)
    fields: dict[str, object] = {
        "model": model,
        "bundle": workspace.models_dir / model.model / model.version,
        "folder": workspace.embedded_users_dir / str(model),
        "now_ms": release.as_of_ms,
        "history_limit": release.history_limit,
        "block_users": 40,
        "workers": 0,
    }
    return UserJob(**fields | changes)  # type: ignore[arg-type]


def test_a_run_that_was_broken_off_goes_on(workspace: Workspace, model: ModelVersion) -> None:
    settings = UserStoreSettings(place=workspace.users_path)

    def break_off(done: Done) -> None:
        if done.index == 1:
            raise Unavailable("killed")

    async def main(job: UserJob) -> EmbeddedUsers:
        with pytest.raises(Unavailable, match="killed"):
            await embed_users(job, settings, on_done=break_off)
        assert moment_of(job.folder, job.now_ms + DAY_MS - 1) == job.now_ms
        assert moment_of(job.folder, job.now_ms + DAY_MS) == job.now_ms + DAY_MS, "of yesterday"
        return await embed_users(job, settings)

    job = job_of(workspace, model)
    made = asyncio.run(main(job))
    assert (made.users, made.blocks, made.blocks_embedded) == (120, 3, 1)
    assert list(job.folder.iterdir()) == []


def vectors_of(workspace: Workspace, model: ModelVersion) -> list[RawValue]:
    """Return the stored vectors of the users, in their order."""
    users = users_of(workspace, *(f"u{row}" for row in range(120)))
    return [user.features[feature_of(model.model)] for user in users]


@pytest.mark.cluster
def test_a_worker_that_is_killed_loses_no_users(workspace: Workspace, model: ModelVersion) -> None:
    settings = UserStoreSettings(place=workspace.users_path)
    asyncio.run(embed_users(job_of(workspace, model), settings))
    expected = vectors_of(workspace, model)
    for row in range(120):
        give(workspace, f"u{row}", feature_of(model.model), "lost")
    heard: list[Done] = []

    def kill_once(done: Done) -> None:
        heard.append(done)
        if len(heard) == 4:
            os.kill(done.pid, signal.SIGKILL)

    job = job_of(workspace, model, block_users=8, workers=2)
    with ray_session("", 2):
        made = asyncio.run(embed_users(job, settings, on_done=kill_once))
    assert (made.users, made.blocks, made.blocks_embedded) == (120, 15, 15)
    assert sorted(done.index for done in heard) == list(range(15))
    assert len({done.pid for done in heard}) == 3, "the killed worker was started again"
    assert os.getpid() not in {done.pid for done in heard}
    assert vectors_of(workspace, model) == expected


def test_only_active_users_are_embedded(workspace: Workspace, model: ModelVersion) -> None:
    release = read_release(workspace, SURFACE)
    assert release.as_of_ms is not None
    late_ms = release.as_of_ms + 30 * DAY_MS
    settings = UserStoreSettings(place=workspace.users_path)
    job = job_of(workspace, model, now_ms=late_ms, active_days=1.0)
    assert asyncio.run(embed_users(job, settings)).users == 0
    with pytest.raises(InvalidInput, match="active-days: must be above 0"):
        job_of(workspace, model, active_days=0.0)


def test_a_release_that_asks_otherwise_is_refused(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    done = headrace("users", "embed", "--workspace", str(tmp_path), "--workers", "0")
    assert isinstance(done.error, InvalidInput)
    assert "asks with stored vectors" in str(done.error)
