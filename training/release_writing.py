"""Writes the bundles of a run and names them in a release."""

from collections.abc import Sequence
from dataclasses import replace

from shards.candidates import Candidates
from shards.gate_knowledge import GateKnowledge
from shards.release import ModelVersion, Release, ReleaseScorer
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from shards.two_tower import TwoTowerParams
from training.channel_contents import Contents, contents_of
from training.channel_recipe import EMBEDDING_SOURCES, ChannelRecipe
from training.channels import Destination, release_channel, write_channel
from training.embedding import Embedding
from training.embedding_bundle import write_embedding
from training.evaluation.offline import merged, open_cascade, retrieve
from training.gate import GateLog, GateTraining, TrainedGate
from training.gate_bundle import GATE, write_gate
from training.gate_knowledge import gate_knowledge
from training.glmix_recipe import GLMixRecipe
from training.item_vectors import TrainedVectors, train_item_vectors, write_item_vectors
from training.merge_weights import FittedMerge, reweighted
from training.path_bundle import write_paths
from training.ranker_bundles import PRE_RANKER, RANKER, write_rankers
from training.rankers import Rankers
from training.recipe import M, RankerRecipe, Recipe
from training.run import GOLDENS, Run
from training.snapshot import Requests, Snapshot
from training.suggestions import write_suggestions
from training.trained_contents import neural_cf_contents
from training.trainer import Advanced, PhaseStarted

_GOLDEN_CANDIDATES = 50

_WRITERS = {
    "deep_retrieval": write_paths,
    "suggestions": write_suggestions,
}
"""What writes the bundle of a channel that a trained embedding serves, by its source; but for "two_tower"."""


def write_channels(
    run: Run,
    known: Snapshot,
    tokenizer: Tokenizer | None,
    embedding: Embedding | None,
    requests: Requests,
    destination: Destination,
) -> None:
    """Write the bundle of every channel as of a moment; vectors of items are trained on the way."""
    vectors = _item_vectors(run, known, tokenizer)
    contexts = (requests if len(requests) else run.browsing(known)).contexts[-GOLDENS:]
    run.observe(PhaseStarted(phase="writing channels", total=len(run.recipe.channels)))
    for channel in run.recipe.channels:
        if channel.source in EMBEDDING_SOURCES:
            assert embedding is not None
            if channel.source == "two_tower":
                write_embedding(
                    channel.name,
                    embedding,
                    known,
                    contexts,
                    destination,
                    two_tower_params(run.recipe, channel),
                    active_within_days=channel.active_within_days,
                    clusters=channel.clusters,
                )
            else:
                _WRITERS[channel.source](channel.name, embedding, known, contexts, destination)
        elif channel.source == "item_vectors":
            assert vectors is not None
            write_item_vectors(channel, vectors, known, contexts, destination)
        else:
            model, contents = destination.model(channel.name), _contents(run, channel, known)
            write_channel(model, contents, known, contexts, destination.root, settings=destination.settings)
        run.observe(Advanced())


def two_tower_params(recipe: Recipe, channel: ChannelRecipe) -> TwoTowerParams:
    """Return the settings of the channel's engine."""
    return TwoTowerParams(
        ann=channel.ann,
        index=channel.index,
        radius=channel.radius,
        first=recipe.ensemble.first if recipe.ensemble else 0,
        clusters=channel.nearest_clusters,
        stored_vectors=channel.stored_vectors,
    )


def _item_vectors(run: Run, known: Snapshot, tokenizer: Tokenizer | None) -> TrainedVectors | None:
    if run.recipe.item_pairs is None:
        return None
    return train_item_vectors(
        run.recipe,
        known,
        tokenizer,
        seeded=run.seeded(),
        observe=run.observe,
        checkpoints=run.checkpoints,
    )


def _contents(run: Run, channel: ChannelRecipe, known: Snapshot) -> Contents:
    if channel.source == "neural_cf":
        return neural_cf_contents(channel, known, run.seeded(), run.observe, run.checkpoints)
    return contents_of(channel, known)


def write_ranker_bundles(
    run: Run, rankers: Rankers, late: Snapshot, contexts: Sequence[SearchContext], destination: Destination
) -> None:
    """Write the rankers; goldens ask what the channels find for the newest requests with an open gate."""
    cascade = open_cascade(retrieval(run, destination), destination.root)
    # Goldens hold one set of columns, and a closed gate leaves out those of its channels.
    asked: list[tuple[SearchContext, Candidates]] = []
    for context in reversed(contexts):
        retrieved = retrieve(cascade, context)
        if run.gate(context, retrieved):
            found = merged(cascade.release, retrieved, gate_open=True)
            asked.append((context, found.first(_GOLDEN_CANDIDATES)))
        if len(asked) == GOLDENS:
            break
    write_rankers(rankers, late, asked, destination)


def known_to_gate(run: Run, known: Snapshot, config: GateTraining) -> GateKnowledge:
    """Return what the gate knows of queries, words and titles as of a moment."""
    channel = next(c for c in run.recipe.channels if c.name == config.channel)
    return gate_knowledge(
        known,
        text=channel.lexical.text_columns,
        half_life_days=config.half_life_days,
        max_queries=config.max_queries,
    )


def write_gate_bundle(
    run: Run, gate: TrainedGate, late: Snapshot, log: GateLog, destination: Destination
) -> None:
    """Write the gate's model; its goldens are the newest searches of the log."""
    config = run.recipe.gate_model
    assert config is not None, "a gate was trained"
    newest = log[-GOLDENS:]
    write_gate(
        gate,
        config,
        known_to_gate(run, late, config),
        list(zip(newest.contexts, newest.lexical, strict=True)),
        late.training_range,
        destination,
    )


def retrieval(run: Run, destination: Destination) -> Release:
    """Return the release as far as its channels go."""
    return Release(
        surface=run.recipe.surface,
        version=destination.version,
        channels=tuple(release_channel(channel, destination) for channel in run.recipe.channels),
        merged=run.recipe.merged,
        exclude_actions=run.recipe.exclude_actions,
    )


def release_of(
    run: Run,
    destination: Destination,
    as_of_ms: int,
    *,
    rankers: Rankers | None = None,
    merge: FittedMerge | None = None,
) -> Release:
    """Return the release of all that was written, with what rankers and a fitted merge add to it."""
    recipe = run.recipe

    def scorer(name: str, stage: RankerRecipe[M] | GLMixRecipe | None) -> ReleaseScorer | None:
        if stage is None:
            return None
        return ReleaseScorer(
            model=destination.model(name), candidates=stage.candidates, budget_ms=stage.budget_ms
        )

    channels = retrieval(run, destination)
    if merge:
        channels = replace(channels, channels=reweighted(channels.channels, merge.weights))
    return replace(
        channels,
        gate=replace(recipe.gate, model=destination.model(GATE) if recipe.gate_model else None),
        pre_ranker=scorer(PRE_RANKER, recipe.pre_ranker),
        ranker=scorer(RANKER, recipe.ranker or recipe.glmix),
        task_exponents=rankers.serving.exponents if rankers else {},
        attributes=recipe.attributes,
        diversity=recipe.diversity if recipe.diversity.changes_order else None,
        history_limit=recipe.history_limit,
        as_of_ms=as_of_ms,
    )


def models_of(recipe: Recipe, destination: Destination) -> tuple[ModelVersion, ...]:
    """Return every model that the recipe makes."""
    models = {PRE_RANKER: recipe.pre_ranker, RANKER: recipe.ranker or recipe.glmix, GATE: recipe.gate_model}
    trained = [name for name, config in models.items() if config is not None]
    return tuple(destination.model(name) for name in (*(c.name for c in recipe.channels), *trained))
