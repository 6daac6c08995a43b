"""Vectors of the active users, made in one go and put into the user store: PinnerFormer's daily inference.

Users are read and cut into blocks, Ray workers embed the blocks, and vectors go into the store beside each
user's features. A run that was broken off goes on with its moment and the blocks that are missing.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from services.user_store import UserStore
from services.user_store_opening import open_users
from services.user_store_settings import UserStoreSettings
from shards.bundle import read_manifest
from shards.errors import FieldViolation, InvalidInput
from shards.release import ModelVersion, Release
from shards.search_context import RawValue, SearchContext, UserState
from shards.stored_vectors import PREFIX, feature_of, stored
from training.datasets.statistics import DAY_MS
from training.trainer import Advanced, Observer, PhaseStarted, ignore
from training.user_blocks import UserBlock, UserEmbedder, write_block
from training.workers import Done, Workers

BLOCK_USERS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class UserJob:
    """Whom to embed by which model, as of which moment."""

    model: ModelVersion
    bundle: Path
    """The bundle whose query tower embeds them: the model, or a partition of it."""
    folder: Path
    """Keeps the blocks of each moment until a run has come to its end."""
    now_ms: int
    history_limit: int
    active_days: float = 90.0
    """Who did something within so many days is active."""
    block_users: int = BLOCK_USERS
    workers: int = 2
    """Actors of the Ray that runs; 0 for this process alone."""

    def __post_init__(self) -> None:
        if not self.active_days > 0:
            raise InvalidInput(FieldViolation("active-days", "must be above 0"))
        if self.block_users < 1:
            raise InvalidInput(FieldViolation("block-users", "must be at least 1"))

    @property
    def blocks_dir(self) -> Path:
        """Return the folder of this moment's blocks."""
        return self.folder / str(self.now_ms)

    def active(self, user: UserState) -> bool:
        """Return whether the user did something lately."""
        newest_ms = max(user.history.timestamps_ms, default=None)
        return newest_ms is not None and newest_ms >= self.now_ms - self.active_days * DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedUsers:
    """What a run did: users whose vectors the store holds now, and blocks that it had to embed."""

    model: ModelVersion
    now_ms: int
    users: int
    blocks: int
    blocks_embedded: int


def asking_with_stored(release: Release, models_dir: Path) -> Iterator[tuple[ModelVersion, Path]]:
    """Give the models of a release that ask with stored vectors, each with the bundle of its query tower."""
    for channel in release.channels:
        bundle = channel.bundles()[0]
        path = models_dir / bundle.model / bundle.version
        manifest = read_manifest(path)
        if manifest.engine == "two_tower" and manifest.params.get("stored_vectors"):
            yield channel.model, path


def moment_of(folder: Path, now_ms: int) -> int:
    """Return the moment of the last day's newest run that was broken off in a folder, or the one given."""
    return max((began_ms for began_ms in _begun(folder) if 0 <= now_ms - began_ms < DAY_MS), default=now_ms)


def _begun(folder: Path) -> list[int]:
    """Return the moments of the runs in a folder."""
    return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]


async def embed_users(
    job: UserJob,
    settings: UserStoreSettings,
    *,
    observe: Observer = ignore,
    on_done: Callable[[Done], None] = lambda _: None,
) -> EmbeddedUsers:
    """Embed the active users of the store and put their vectors into it.

    Needs a Ray that was joined, where there shall be workers. Raises what the store raises, and BundleError
    for a bundle that must not be served.
    """

    def advance(done: Done) -> None:
        observe(Advanced())
        on_done(done)

    async with open_users(settings) as store:
        observe(PhaseStarted(phase="reading users"))
        blocks = await _cut(job, store)
        missing = [block for block in blocks if not block.vectors_path.exists()]
        observe(PhaseStarted(phase="embedding users", total=len(missing)))
        Workers(job.workers).do_all(partial(UserEmbedder, job.bundle), missing, advance)
        observe(PhaseStarted(phase="storing vectors", total=len(blocks)))
        users = 0
        for block in blocks:
            users += await store.add_features(_features(block, job.model))
            observe(Advanced())
    for began_ms in _begun(job.folder):
        if began_ms <= job.now_ms:
            shutil.rmtree(job.folder / str(began_ms), ignore_errors=True)
    return EmbeddedUsers(
        model=job.model, now_ms=job.now_ms, users=users, blocks=len(blocks), blocks_embedded=len(missing)
    )


async def _cut(job: UserJob, store: UserStore) -> list[UserBlock]:
    """Write the store's active users as blocks, in the order of their ids, which an interruption keeps."""
    job.blocks_dir.mkdir(parents=True, exist_ok=True)
    ids = sorted([user_id async for user_id in store.user_ids()])
    blocks: list[UserBlock] = []
    held: list[SearchContext] = []
    for user_id in ids:
        user = await store.get(user_id, job.now_ms, job.history_limit)
        if not job.active(user):
            continue
        features = {name: value for name, value in user.features.items() if not name.startswith(PREFIX)}
        held.append(SearchContext(user=replace(user, features=features), now_ms=job.now_ms))
        if len(held) == job.block_users:
            blocks.append(write_block(tuple(held), job.blocks_dir))
            held.clear()
    return [*blocks, write_block(tuple(held), job.blocks_dir)] if held else blocks


def _features(block: UserBlock, model: ModelVersion) -> dict[str, dict[str, RawValue]]:
    name = feature_of(model.model)
    pairs = zip(block.contexts(), block.vectors(), strict=True)
    return {context.user.user_id: {name: stored(vector_HD, model.version)} for context, vector_HD in pairs}
