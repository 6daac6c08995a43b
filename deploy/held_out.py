"""The held-out queries that a release of a workspace is measured by."""

from dataclasses import dataclass
from pathlib import Path

from deploy.folders import cache_dir
from deploy.known_recipes import dataset_of
from deploy.release_files import only_surface, read_release
from deploy.workspace import Workspace
from shards.release import Release
from training.datasets import sources
from training.datasets.tables import Dataset
from training.evaluation.judgements import Judged, judged_queries


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Which queries to ask: those of a split of a data set, `limit` of them or all for 0.

    Without a `surface` it is the workspace's only one, without a `dataset` the one of the surface's name.
    """

    surface: str = ""
    dataset: str = ""
    split: str = "test"
    limit: int = 0
    data_dir: Path | None = None
    seed: int = 0

    def release(self, folders: Workspace) -> Release:
        """Return the release to measure. Raises `InvalidInput` and `NotFound` as `read_release` does."""
        return read_release(folders, self.surface or only_surface(folders))

    def queries(self, release: Release, folders: Workspace) -> tuple[Dataset, list[Judged]]:
        """Return the data set and its judged queries, with as much history as the release reads."""
        name = self.dataset or dataset_of(release.surface, folders)
        data = sources.load(name, cache_dir=cache_dir(), data_dir=self.data_dir, seed=self.seed)
        judged = judged_queries(data, self.split, limit=self.limit, history_limit=release.history_limit)
        return data, judged
