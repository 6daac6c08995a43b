"""A release brought up to a later moment without training: tables and statistics are made again.

What no gradient made is made as `headrace train` makes it, from what is known by then: lexical priors,
memories, similar items, what is popular. Trained bundles are copied with the items' newer statistics beside
the same programs, vectors and indexes: rankers read popularity and prices as of the new moment. The gate
stays as it is, and so do channels in partitions.
"""

import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.bundle import open_bundle
from shards.errors import FieldViolation, InvalidInput
from shards.feature_kinds import ITEM_ID_COLUMN
from shards.forward_index import ITEMS_FILE
from shards.golden import GOLDEN_FILE, read_golden
from shards.manifest import MANIFEST_FILE
from shards.release import ModelVersion, Release, ReleaseScorer
from training.answered_bundle import write_answered_again
from training.channel_contents import UNTRAINED, contents_of
from training.channels import Destination, write_channel
from training.datasets.statistics import DAY_MS
from training.datasets.tables import row_numbers
from training.evaluation.offline import Cascade, open_cascade
from training.ranker_bundles import PRE_RANKER, RANKER
from training.run import GOLDENS, Run
from training.snapshot import Snapshot


def refresh(
    run: Run, release: Release, models_dir: Path, known: Snapshot, destination: Destination
) -> Release:
    """Write the bundles of a release as of the snapshot's moment and return the release that names them.

    Raises InvalidInput where the release's channels are not the recipe's, or an item of a trained bundle is
    not in the data; BundleError for a bundle that must not be served; FileExistsError where the version
    exists.
    """
    recipes = {channel.name: channel for channel in run.recipe.channels}
    if set(recipes) != {channel.name for channel in release.channels}:
        problem = f"has the channels {', '.join(sorted(recipes))}, which are not those of {release.version}"
        raise InvalidInput(FieldViolation("recipe", problem))
    requests = run.requests_between(0, known.now_ms, newest=GOLDENS)
    contexts = (requests if len(requests) else run.browsing(known)).contexts

    refreshed = named(release, destination, known.now_ms)
    for before, after in zip(release.channels, refreshed.channels, strict=True):
        recipe, model = recipes[after.name], after.model
        if before == after:
            continue
        if recipe.source in UNTRAINED:
            contents = contents_of(recipe, known)
            write_channel(model, contents, known, contexts, destination.root, settings=destination.settings)
        else:
            _write_copy(models_dir, before.model, model, known, destination.root)
    for (_, old), (_, new) in zip(release.scorers(), refreshed.scorers(), strict=True):
        _write_copy(models_dir, old.model, new.model, known, destination.root)
    return refreshed


def named(release: Release, destination: Destination, now_ms: int) -> Release:
    """Return the release as `refresh` names it as of a moment, whether its bundles are there or not."""

    def scorer(name: str, pinned: ReleaseScorer | None) -> ReleaseScorer | None:
        return replace(pinned, model=destination.model(name)) if pinned else None

    return replace(
        release,
        version=destination.version,
        channels=tuple(
            channel if channel.partitions > 1 else replace(channel, model=destination.model(channel.name))
            for channel in release.channels
        ),
        pre_ranker=scorer(PRE_RANKER, release.pre_ranker),
        ranker=scorer(RANKER, release.ranker),
        as_of_ms=now_ms,
    )


@contextmanager
def open_refreshed(run: Run, release: Release, models_dir: Path, known: Snapshot) -> Iterator[Cascade]:
    """Yield the release as of the snapshot's moment, its bundles opened; they are gone afterwards.

    Raises what `refresh` raises, and InvalidInput for a release with a channel in partitions.
    """
    if release.as_of_ms == known.now_ms:
        yield open_cascade(release, models_dir)
        return
    if any(channel.partitions > 1 for channel in release.channels):
        raise InvalidInput(FieldViolation("release", "has a channel in partitions, which is not refreshed"))
    with tempfile.TemporaryDirectory(prefix="headrace-refreshed-") as folder:
        destination = Destination(root=Path(folder), prefix=run.recipe.surface, version=str(known.now_ms))
        refreshed = refresh(run, release, models_dir, known, destination)
        yield open_cascade(refreshed, destination.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What answers some searches, one after another: a release with its bundles open, and what it knows."""

    cascade: Cascade
    known: Snapshot
    searches: slice


def stretches(
    run: Run, release: Release, models_dir: Path, times_ms: Sequence[int], every_days: float | None
) -> Iterator[Stretch]:
    """Yield what answers searches of these times, in order, where the release is refreshed so often.

    None: never, and the release answers all of them. Raises InvalidInput for a search before the release's
    moment, and what `open_refreshed` raises.
    """
    for now_ms, searches in moments(release, times_ms, every_days):
        known = run.snapshot(now_ms)
        with open_refreshed(run, release, models_dir, known) as cascade:
            yield Stretch(cascade=cascade, known=known, searches=searches)


def moments(
    release: Release, times_ms: Sequence[int], every_days: float | None
) -> Iterator[tuple[int, slice]]:
    """Yield when the release is refreshed, and which of these searches, in order of time, follow.

    A moment that no search follows is left out. Raises InvalidInput for a search before the release's moment.
    """
    start_ms = release.as_of_ms
    if start_ms is None or (times_ms and times_ms[0] < start_ms):
        raise InvalidInput(FieldViolation("release", "knows what came after the first search"))
    if not times_ms:
        return
    starts_ms = [start_ms]
    if every_days is not None:
        starts_ms = list(range(start_ms, times_ms[-1] + 1, round(every_days * DAY_MS)))
    for now_ms, until_ms in zip(starts_ms, [*starts_ms[1:], times_ms[-1] + 1], strict=True):
        searches = slice(bisect_left(times_ms, now_ms), bisect_left(times_ms, until_ms))
        if searches.start < searches.stop:
            yield now_ms, searches


def _write_copy(
    models_dir: Path, pinned: ModelVersion, model: ModelVersion, known: Snapshot, root: Path
) -> None:
    """Write a trained bundle with the statistics that are known now; its goldens ask what they asked."""
    bundle = open_bundle(models_dir / pinned.model / pinned.version, pinned)
    items = _rows_of(known.items, pq.read_table(bundle.file(ITEMS_FILE), columns=[ITEM_ID_COLUMN]), pinned)
    golden = read_golden(bundle.file(GOLDEN_FILE))
    manifest = replace(bundle.manifest, name=model.model, version=model.version)

    def fill(folder: Path) -> None:
        ours = shutil.ignore_patterns(MANIFEST_FILE, ITEMS_FILE, GOLDEN_FILE)
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True, ignore=ours)
        pq.write_table(items, folder / ITEMS_FILE)

    write_answered_again(root, manifest, fill, golden)


def _rows_of(items: pa.Table, held: pa.Table, model: ModelVersion) -> pa.Table:
    """Return the rows of the items that a bundle holds, in its order."""
    row_N = row_numbers(held.column(ITEM_ID_COLUMN), items.column(ITEM_ID_COLUMN))
    if (row_N < 0).any():
        missing = held.column(ITEM_ID_COLUMN)[int(np.argmax(row_N < 0))].as_py()
        problem = f"has no item {missing!r}, which {model} holds; train again"
        raise InvalidInput(FieldViolation("dataset", problem))
    return items.take(pa.array(row_N))
