"""Makes the bundles of retrieval channels from what was known at a moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from shards.forward_index import ITEMS_FILE
from shards.json_codec import to_json
from shards.manifest import Manifest
from shards.release import ModelVersion, ReleaseChannel, Stage
from shards.search_context import SearchContext
from training.answered_bundle import write_answered
from training.channel_contents import Contents
from training.channel_recipe import ChannelRecipe
from training.snapshot import Snapshot

GOLDEN_K = 20
"""Items of a golden request to a retriever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where bundles go and what they are called."""

    root: Path
    prefix: str
    version: str
    settings: tuple[str, ...] = ()
    """What was set in place of the recipe's own settings; manifests say it."""
    full_version: str = ""
    """What manifests say where tables alone learned on: the version that a full update begins with."""

    def model(self, name: str) -> ModelVersion:
        """Return the name and version of a model of this recipe."""
        return ModelVersion(f"{self.prefix}-{name}", self.version)


def release_channel(channel: ChannelRecipe, destination: Destination) -> ReleaseChannel:
    """Return how a release names the channel."""
    return ReleaseChannel(
        name=channel.name,
        model=destination.model(channel.name),
        k=channel.k,
        quota=channel.quota,
        weight=channel.weight,
        gated=channel.gated,
    )


def write_channel(
    model: ModelVersion,
    contents: Contents,
    snapshot: Snapshot,
    contexts: Sequence[SearchContext],
    root: Path,
    *,
    settings: tuple[str, ...] = (),
) -> None:
    """Write the bundle of a channel by what it holds; its goldens answer `contexts`.

    The engine itself answers them first, from a bundle without goldens: it is what rankers train on.
    """
    rows = sum(map(len, contents.tables.values()))
    manifest = Manifest(
        name=model.model,
        version=model.version,
        stage=Stage.RETRIEVAL,
        engine=contents.engine,
        sizes={"items": len(snapshot.items)} | ({"rows": rows} if contents.tables else {}),
        params=to_json(contents.params),
        training_range=snapshot.training_range,
        settings=settings,
    )

    def fill(folder: Path) -> None:
        pq.write_table(snapshot.items, folder / ITEMS_FILE)
        for name, table in contents.tables.items():
            pq.write_table(table, folder / name)

    write_answered(root, manifest, fill, contexts, [GOLDEN_K] * len(contexts))
