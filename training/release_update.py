"""A released two-tower model that learns from what came since, and is written as another version of itself.

Features, vocabularies, scales and the tokeniser stay as they were when it was trained from nothing; items
that have come since are embedded and indexed with the others.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from shards.bundle import Bundle, open_bundle
from shards.errors import FieldViolation, InvalidInput, MismatchedBundle
from shards.feature_encoder import RequestEncoder
from shards.features import FEATURES_FILE
from shards.forward_index import ForwardIndex
from shards.release import ModelVersion, Release
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.embedding import Embedding, examples_of, hard_rows
from training.embedding_bundle import write_embedding
from training.models.two_tower import TwoTower
from training.overrides import with_overrides
from training.parameters import restored
from training.recipe import Recipe
from training.release_writing import two_tower_params
from training.run import GOLDENS, Run
from training.snapshot import Snapshot
from training.tensors import as_tensors
from training.updates import go_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What an update goes on from, and until which moment it learns."""

    channel: ChannelRecipe
    release: Release
    source: Bundle
    until_ms: int
    tables_only: bool

    @property
    def since_ms(self) -> int:
        """Return the moment from which on the source knows nothing."""
        known = self.source.manifest.training_range
        assert known is not None, "trained bundles say what they know"
        return known.end_ms

    @property
    def full_version(self) -> str:
        """Return what the manifest shall name as the version that a full update begins with."""
        manifest = self.source.manifest
        return (manifest.full_version or manifest.version) if self.tables_only else ""

    def released(self, model: ModelVersion) -> Release:
        """Return the release with this version of the model, under the version's name."""
        channels = tuple(
            replace(channel, model=model) if channel.name == self.channel.name else channel
            for channel in self.release.channels
        )
        as_of_ms = None if self.release.as_of_ms is None else self.until_ms
        return replace(self.release, version=model.version, channels=channels, as_of_ms=as_of_ms)


def update_of(
    recipe: Recipe, release: Release, models_dir: Path, *, until_ms: int, tables_only: bool
) -> Update:
    """Return the update of a release's embedding: of tables alone from where that is, or in full from where
    all of it last learned.

    Raises `InvalidInput` for a recipe or a release without such a model, BundleError for a source that is
    not as it was written.
    """
    channel = _channel_of(recipe)
    pinned = next((c.model for c in release.channels if c.name == channel.name), None)
    if pinned is None:
        raise InvalidInput(FieldViolation("release", f"{release.name} has no channel {channel.name!r}"))
    source = open_bundle(models_dir / pinned.model / pinned.version, expect=pinned)
    if source.manifest.full_version and not tables_only:
        full = ModelVersion(pinned.model, source.manifest.full_version)
        source = open_bundle(models_dir / full.model / full.version, expect=full)
    return Update(channel=channel, release=release, source=source, until_ms=until_ms, tables_only=tables_only)


def _channel_of(recipe: Recipe) -> ChannelRecipe:
    others = (recipe.ensemble, recipe.sequences, recipe.prod2vec, recipe.hydration, recipe.paths)
    channel = next((c for c in recipe.channels if c.source == "two_tower"), None)
    if channel is None or any(other is not None for other in others):
        raise InvalidInput(
            FieldViolation("recipe", f"{recipe.name!r} has no plain two-tower model to update")
        )
    return channel


def write_update(run: Run, update: Update, destination: Destination) -> Release:
    """Learn, write the new version of the model and return the release with it.

    Raises `InvalidInput` where there is nothing to learn from.
    """
    recipe = with_overrides(run.recipe, update.source.manifest.settings)
    run = replace(run, recipe=recipe)
    known = run.snapshot(update.until_ms)
    requests = run.requests_between(update.since_ms, update.until_ms, newest=recipe.two_tower_queries)
    if not len(requests):
        problem = f"there are no searches that {update.source.manifest.model_version} does not know already"
        raise InvalidInput(FieldViolation("until", problem))
    generator = run.seeded().apply()
    embedding = _restored(recipe, update.source, known)
    assert isinstance(embedding.model, TwoTower)
    examples = examples_of(embedding.encoder, ForwardIndex(known.items), requests)
    go_on(
        embedding.model,
        recipe.two_tower,
        recipe.updates,
        replace(examples, hard_QR=hard_rows(recipe.two_tower.hard, known, requests, None)),
        embedding.item,
        generator,
        tables_only=update.tables_only,
        observe=run.observe,
    )
    write_embedding(
        update.channel.name,
        embedding,
        known,
        requests.contexts[-GOLDENS:],
        destination,
        two_tower_params(recipe, update.channel),
        active_within_days=update.channel.active_within_days,
        clusters=update.channel.clusters,
    )
    return update.released(destination.model(update.channel.name))


def _restored(recipe: Recipe, source: Bundle, known: Snapshot) -> Embedding:
    items = ForwardIndex(known.items)
    columns = items.columns(known.items.column_names)
    if source.spec is None:
        raise MismatchedBundle(FEATURES_FILE, "is missing, which a two-tower model reads")
    encoder = RequestEncoder(source.spec, source.tokenizer, items.rows, columns)
    item = as_tensors(encoder.encode_items(columns))
    shared = recipe.features.shared
    return Embedding(
        model=restored(recipe.two_tower.model, source, items.item_ids, item=item, shared=shared),
        spec=source.spec,
        tokenizer=source.tokenizer,
        encoder=encoder,
        item=item,
        epochs=0,
        recall=float("nan"),
    )
