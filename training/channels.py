"""Makes the bundles of retrieval channels from what was known at a moment."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.forward_index import ITEMS_FILE
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.json_codec import to_json
from shards.lexical import LexicalParams
from shards.lookup_table import TABLE_FILE, LookupParams
from shards.manifest import Manifest
from shards.release import ModelVersion, ReleaseChannel, Stage
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.stages import Retriever
from training import lookup_tables
from training.recipe import ChannelRecipe
from training.snapshot import Snapshot

GOLDEN_K = 20
"""Items of a golden request to a retriever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where bundles go and what they are called."""

    root: Path
    prefix: str
    version: str

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
    channel: ChannelRecipe, snapshot: Snapshot, contexts: Sequence[SearchContext], destination: Destination
) -> None:
    """Write the bundle of a channel that has nothing to train; its goldens answer `contexts`.

    The engine itself answers them first, from a bundle without goldens: it is what rankers train on.
    """
    model = destination.model(channel.name)
    params, table = _contents(channel, snapshot)
    manifest = Manifest(
        name=model.model,
        version=model.version,
        stage=Stage.RETRIEVAL,
        engine="lexical" if channel.source == "lexical" else "table",
        sizes={"items": len(snapshot.items)} | ({} if table is None else {"rows": len(table)}),
        params=to_json(params),
        training_range=snapshot.training_range,
    )

    def fill(folder: Path) -> None:
        pq.write_table(snapshot.items, folder / ITEMS_FILE)
        if table is not None:
            pq.write_table(table, folder / TABLE_FILE)

    answers = _answers(manifest, fill, contexts)

    def fill_with_golden(folder: Path) -> None:
        fill(folder)
        write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers))

    write_bundle(destination.root, manifest, fill_with_golden)


def _answers(
    manifest: Manifest, fill: Callable[[Path], None], contexts: Sequence[SearchContext]
) -> list[Candidates]:
    with tempfile.TemporaryDirectory() as root:
        servable = open_servable(open_bundle(write_bundle(Path(root), manifest, fill)), "cpu")
        assert isinstance(servable, Retriever)
        return [servable.retrieve(context, GOLDEN_K, (), (), 0) for context in contexts]


def _contents(
    channel: ChannelRecipe, snapshot: Snapshot
) -> tuple[LexicalParams | LookupParams, pa.Table | None]:
    """Return an engine's settings and, for a table, its rows."""
    if channel.source == "lexical":
        return channel.lexical, None
    if channel.source == "own":
        return LookupParams(key="user_items", half_life_days=channel.half_life_days), None
    return LookupParams(key=_KEYS[channel.source]), _TABLES[channel.source](channel, snapshot)


_KEYS: Mapping[str, str] = {
    "query_memory": "query",
    "token_memory": "query_token",
    "title_popularity": "query_token",
    "neighbours": "history",
    "popular": "global",
}


def _query_memory(channel: ChannelRecipe, snapshot: Snapshot) -> pa.Table:
    return lookup_tables.query_memory(
        snapshot.queries, snapshot.now_ms, half_life_days=channel.half_life_days, top=channel.top
    )


def _token_memory(channel: ChannelRecipe, snapshot: Snapshot) -> pa.Table:
    return lookup_tables.token_memory(
        snapshot.queries, snapshot.now_ms, half_life_days=channel.half_life_days, top=channel.top
    )


def _title_popularity(channel: ChannelRecipe, snapshot: Snapshot) -> pa.Table:
    return lookup_tables.title_popularity(
        snapshot.items, text=channel.text, popularity=channel.popularity, top=channel.top
    )


def _neighbours(channel: ChannelRecipe, snapshot: Snapshot) -> pa.Table:
    return lookup_tables.item_neighbours(
        snapshot.items, snapshot.events, snapshot.now_ms, shrink=channel.shrink, top=channel.top
    )


def _popular(channel: ChannelRecipe, snapshot: Snapshot) -> pa.Table:
    return lookup_tables.popular_items(snapshot.items, popularity=channel.popularity, top=channel.top)


_TABLES: Mapping[str, Callable[[ChannelRecipe, Snapshot], pa.Table]] = {
    "query_memory": _query_memory,
    "token_memory": _token_memory,
    "title_popularity": _title_popularity,
    "neighbours": _neighbours,
    "popular": _popular,
}
