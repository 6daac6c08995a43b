"""From a dataset to a release: everything that `headrace train` does, without a command line.

Two moments matter. Rankers must not train on candidates from channels that have seen their queries: those
would look better than they will ever be. So channels are first made as of an early moment, rankers learn
from the queries between it and the test, and then channels are made again, with the same settings and seed,
from all that lies before the test. A recipe of channels that learn nothing is made once, as of the test.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shards.candidates import Candidates
from shards.column_encoder import texts
from shards.gate_knowledge import GateKnowledge
from shards.release import ModelVersion, Release, ReleaseScorer
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from training.channel_contents import Contents, contents_of
from training.channels import Destination, release_channel, write_channel
from training.checkpoints import Checkpoints
from training.datasets.splits import known_until_ms, split_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset, timestamps_ms
from training.embedding import Embedding, train_embedding, write_embedding
from training.evaluation.next_items import next_items, sampled
from training.evaluation.offline import GateRule, merged, open_cascade, retrieve
from training.gate import GateLog, GateTraining, TrainedGate, kept_lexical, train_gate
from training.gate_bundle import GATE, write_gate
from training.gate_knowledge import gate_knowledge
from training.gate_labels import page_gains, recall_gain
from training.hydration import hydrated
from training.merge_weights import FittedMerge, fitted_merge, reweighted
from training.path_bundle import write_paths
from training.ranker_bundles import PRE_RANKER, RANKER, write_rankers
from training.rankers import Judgements, Rankers, train_rankers
from training.recipe import EMBEDDING_RECALL, EMBEDDING_SOURCES, ChannelRecipe, M, RankerRecipe, Recipe
from training.snapshot import Requests, Snapshot, browsing_at, requests_between, snapshot, task_labels
from training.suggestions import write_suggestions
from training.trained_contents import neural_cf_contents
from training.trainer import Advanced, Observer, PhaseStarted, Seeded, ignore

GOLDENS = 8
"""Golden requests of a bundle."""
_GOLDEN_CANDIDATES = 50

_WRITERS = {
    "two_tower": write_embedding,
    "deep_retrieval": write_paths,
    "suggestions": write_suggestions,
}
"""What writes the bundle of a channel that a trained embedding serves, by its source."""

_EMBEDDING_HELD_OUT = 2000
"""Queries after the early moment by whose recall the two-tower model stops."""


_MERGE_USERS = 5000
"""Users of the valid split to whom the merge is fitted: a fixed sample."""
_NOTHING = Requests(contexts=(), item_ids=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run made: a release whose bundles are on disk, and figures on queries held out of training."""

    release: Release
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What the queries between the early moment and the test taught; None for what the recipe has not."""

    tokenizer: Tokenizer | None = None
    embedding: Embedding | None = None
    requests: Requests = _NOTHING
    log: GateLog = field(default_factory=lambda: GateLog(contexts=(), lexical=(), gain_Q=np.zeros(0)))
    rankers: Rankers | None = None
    gate: TrainedGate | None = None
    merge: FittedMerge | None = None

    def figures(self) -> dict[str, float]:
        """Return figures on queries held out of training."""
        found = {}
        if self.embedding:
            found[EMBEDDING_RECALL] = self.embedding.recall
        if self.rankers and self.rankers.pre_ranker:
            found["pre-ranker NDCG@10"] = self.rankers.pre_ranker_ndcg
        if self.rankers and self.rankers.ranker:
            found["ranker NDCG@10"] = self.rankers.ranker_ndcg
        if self.gate:
            found |= {f"gate {name}": value for name, value in self.gate.figures.items()}
        if self.merge:
            reached = self.merge.figures
            found |= {
                "next items, merged, Recall@10": reached.recall_10,
                "next items, merged, NDCG@10": reached.ndcg_10,
                "next items, merged, NDCG@20": reached.ndcg_20,
            }
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a recipe: what all its steps share.

    `gate` says whether a search runs the gated channels, so that rankers meet candidates as they will when
    serving.
    """

    recipe: Recipe
    dataset: Dataset
    seed: int
    gate: GateRule
    threads: int = 1
    observe: Observer = ignore
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """Where a run that was broken off goes on from; steps that train nothing are done again."""

    def train(self, destination: Destination) -> Trained:
        """Train every model and write its bundles.

        Equal runs give bundles with equal scores. Raises FileExistsError where a bundle of this name and
        version exists.
        """
        test_ms = known_until_ms(self.dataset)
        learned = self._learn(test_ms, destination.prefix)
        late = snapshot(self.dataset, test_ms)
        requests = self._requests_until(test_ms)
        embedding = self._embedding(
            late,
            learned.tokenizer,
            requests,
            early=learned.embedding,
            rejected_QR=learned.rankers.rejected_QR if learned.rankers else None,
        )
        self._write_channels(late, embedding, requests, destination)
        if learned.rankers is not None:
            self._write_rankers(learned.rankers, late, learned.requests.contexts, destination)
        if learned.gate is not None:
            self._write_gate(learned.gate, late, learned.log, destination)
        return Trained(release=self._release(destination, test_ms, learned), figures=learned.figures())

    def rehearse(self) -> Mapping[str, float]:
        """Return the figures on queries held out of training, having learnt all and written nothing."""
        return self._learn(known_until_ms(self.dataset), "rehearsal").figures()

    def _learn(self, test_ms: int, prefix: str) -> "_Learned":
        """Learn from what came between the early moment and the test, where anything learns."""
        recipe = self.recipe
        if not (recipe.embeds or recipe.judges or recipe.fit_merge):
            return _Learned()
        early = snapshot(self.dataset, self._early_ms(test_ms))
        tokenizer = self._tokenizer(early) if recipe.reads_texts else None
        requests = _NOTHING
        if recipe.embeds or recipe.judges:
            requests = self._requests(early.now_ms, test_ms, newest=recipe.ranking_queries)
        earlier = self._requests_until(early.now_ms)
        embedding = self._embedding(early, tokenizer, earlier, held_out=requests[:_EMBEDDING_HELD_OUT])
        if not (recipe.judges or recipe.fit_merge):
            return _Learned(tokenizer=tokenizer, embedding=embedding)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Destination(root=Path(folder), prefix=prefix, version="early")
            self._write_channels(early, embedding, earlier, scratch)
            if recipe.fit_merge:
                return _Learned(tokenizer=tokenizer, embedding=embedding, merge=self._fit_merge(scratch))
            judgements, log = self._judgements(requests, scratch)
            assert tokenizer is not None, "rankers and gates read texts"
            rankers = self._train_rankers(early, tokenizer, judgements) if self.recipe.ranks else None
            if rankers and self.recipe.gate_model and self.recipe.gate_model.label == "page":
                betters_Q = self._page_gains(rankers, early, requests, scratch)
                log = replace(log, gain_Q=np.minimum(log.gain_Q + betters_Q, 1.0))
        return _Learned(
            tokenizer=tokenizer,
            embedding=embedding,
            requests=requests,
            log=log,
            gate=self._train_gate(early, log),
            rankers=rankers,
        )

    def _fit_merge(self, early: Destination) -> FittedMerge:
        """Return weights that suit the valid split's next items, which the early channels do not know."""
        cascade = open_cascade(self._retrieval(early), early.root)
        asked = next_items(self.dataset, "valid", history_limit=self.recipe.history_limit)
        asked = sampled(asked, _MERGE_USERS)
        self.observe(PhaseStarted(phase="fitting the merge", total=len(asked)))
        retrieved = []
        for user in asked:
            retrieved.append(retrieve(cascade, user.context))
            self.observe(Advanced())
        return fitted_merge(asked, retrieved, {c.name: c.weight for c in self.recipe.channels})

    def _train_rankers(self, early: Snapshot, tokenizer: Tokenizer, judgements: Judgements) -> Rankers:
        cut = int(len(judgements) * (1 - self.recipe.holdout))
        return train_rankers(
            self.recipe,
            early,
            tokenizer,
            judgements[:cut],
            judgements[cut:],
            seeded=self._seeded(),
            observe=self.observe,
            checkpoints=self.checkpoints,
        )

    def _seeded(self) -> Seeded:
        return Seeded(seed=self.seed, threads=self.threads)

    def _early_ms(self, test_ms: int) -> int:
        """Return the early moment: `ranking_days` before the test, later if that holds queries enough.

        Where the merge is fitted it is the start of the valid split.
        """
        if self.recipe.fit_merge:
            return split_of(self.dataset.queries).valid_from_ms
        times_ms = timestamps_ms(self.dataset.queries)
        recent = times_ms[(times_ms >= test_ms - self.recipe.ranking_days * DAY_MS) & (times_ms < test_ms)]
        if not len(recent) or len(recent) == int((times_ms < test_ms).sum()):
            raise ValueError("ranking_days must leave queries on both sides of the early moment")
        return int(recent[-self.recipe.ranking_queries :][0])

    def _tokenizer(self, early: Snapshot) -> Tokenizer:
        columns = [early.items.column(name).to_pylist() for name in self.recipe.features.token_sources]
        some = [text for column in columns for text in texts(column)]
        return Tokenizer.train(
            [*some, *early.queries.column("query").to_pylist()], vocab_size=self.recipe.features.vocab_size
        )

    def _requests(self, start_ms: int, end_ms: int, *, newest: int) -> Requests:
        return requests_between(
            self.dataset, start_ms, end_ms, newest=newest, history_limit=self.recipe.history_limit
        )

    def _requests_until(self, now_ms: int) -> Requests:
        """Return what the two-tower model learns from, or what the goldens of other channels ask."""
        self.observe(PhaseStarted(phase="encoding queries"))
        newest = self.recipe.two_tower_queries if self.recipe.embeds else GOLDENS
        return self._requests(0, now_ms, newest=newest)

    def _embedding(
        self,
        known: Snapshot,
        tokenizer: Tokenizer | None,
        requests: Requests,
        *,
        held_out: Requests | None = None,
        early: Embedding | None = None,
        rejected_QR: Tensor | None = None,
    ) -> Embedding | None:
        """Train the two-tower model, where the recipe has one, from what was known at a moment.

        It lasts as long as an early one did.
        """
        if not self.recipe.embeds:
            return None
        embedding = train_embedding(
            self.recipe,
            known,
            tokenizer,
            requests,
            seeded=self._seeded(),
            held_out=held_out,
            epochs=early.epochs if early else None,
            rejected_QR=rejected_QR,
            observe=self.observe,
            checkpoints=self.checkpoints,
        )
        if self.recipe.hydration is None:
            return embedding
        return hydrated(
            embedding, self.recipe.hydration, known, fitted_on=held_out, early=early, seed=self.seed
        )

    def _write_channels(
        self, known: Snapshot, embedding: Embedding | None, requests: Requests, destination: Destination
    ) -> None:
        """Write the bundle of every channel as of a moment."""
        contexts = (requests if len(requests) else self._browsing(known)).contexts[-GOLDENS:]
        self.observe(PhaseStarted(phase="writing channels", total=len(self.recipe.channels)))
        for channel in self.recipe.channels:
            if channel.source in EMBEDDING_SOURCES:
                assert embedding is not None
                _WRITERS[channel.source](channel.name, embedding, known, contexts, destination)
            else:
                model, contents = destination.model(channel.name), self._contents(channel, known)
                write_channel(
                    model, contents, known, contexts, destination.root, settings=destination.settings
                )
            self.observe(Advanced())

    def _contents(self, channel: ChannelRecipe, known: Snapshot) -> Contents:
        if channel.source == "neural_cf":
            return neural_cf_contents(channel, known, self._seeded(), self.observe, self.checkpoints)
        return contents_of(channel, known)

    def _browsing(self, known: Snapshot) -> Requests:
        return browsing_at(
            self.dataset, known.now_ms, newest=GOLDENS, history_limit=self.recipe.history_limit
        )

    def _judgements(self, requests: Requests, scratch: Destination) -> tuple[Judgements, GateLog]:
        """Return the requests with what the early channels find for them, for rankers and for the gate."""
        release = self._retrieval(scratch)
        cascade = open_cascade(release, scratch.root)
        self.observe(PhaseStarted(phase="finding candidates", total=len(requests)))
        candidates, lexical, gains = [], [], []
        for context, item_id in zip(requests.contexts, requests.item_ids, strict=True):
            retrieved = retrieve(cascade, context)
            candidates.append(merged(release, retrieved, gate_open=self.gate(context, retrieved)))
            if config := self.recipe.gate_model:
                lexical.append(kept_lexical(retrieved[config.channel]))
                gains.append(recall_gain(release, retrieved, item_id, config.depths))
            self.observe(Advanced())
        judgements = Judgements(
            requests=requests,
            candidates=candidates,
            labels=task_labels(self.dataset, requests, self.recipe.tasks),
        )
        contexts = requests.contexts if lexical else ()
        return judgements, GateLog(contexts=contexts, lexical=lexical, gain_Q=np.array(gains, np.float64))

    def _page_gains(
        self, rankers: Rankers, early: Snapshot, requests: Requests, scratch: Destination
    ) -> NDArray[np.float64]:
        """Return what an open gate adds to the page that the rankers make of each request [Q]."""
        self._write_rankers(rankers, early, requests.contexts, scratch)
        release = self._release(scratch, early.now_ms, _Learned(rankers=rankers))
        self.observe(PhaseStarted(phase="pages with and without embeddings", total=len(requests)))
        return page_gains(
            open_cascade(release, scratch.root), requests, on_query=lambda: self.observe(Advanced())
        )

    def _train_gate(self, early: Snapshot, log: GateLog) -> TrainedGate | None:
        """Train the gate's model as the rankers are: the last `holdout` of the searches stops it."""
        config = self.recipe.gate_model
        if config is None:
            return None
        cut = int(len(log) * (1 - self.recipe.holdout))
        return train_gate(
            config,
            self._gate_knowledge(early, config),
            log[:cut],
            log[cut:],
            seeded=self._seeded(),
            observe=self.observe,
            checkpoints=self.checkpoints,
        )

    def _gate_knowledge(self, known: Snapshot, config: GateTraining) -> GateKnowledge:
        channel = next(c for c in self.recipe.channels if c.name == config.channel)
        return gate_knowledge(
            known,
            text=channel.lexical.text_columns,
            half_life_days=config.half_life_days,
            max_queries=config.max_queries,
        )

    def _write_gate(self, gate: TrainedGate, late: Snapshot, log: GateLog, destination: Destination) -> None:
        config = self.recipe.gate_model
        assert config is not None, "a gate was trained"
        newest = log[-GOLDENS:]
        write_gate(
            gate,
            config,
            self._gate_knowledge(late, config),
            list(zip(newest.contexts, newest.lexical, strict=True)),
            late.training_range,
            destination,
        )

    def _write_rankers(
        self, rankers: Rankers, late: Snapshot, contexts: Sequence[SearchContext], destination: Destination
    ) -> None:
        cascade = open_cascade(self._retrieval(destination), destination.root)
        # Goldens hold one set of columns, and a closed gate leaves out those of its channels.
        asked: list[tuple[SearchContext, Candidates]] = []
        for context in reversed(contexts):
            retrieved = retrieve(cascade, context)
            if self.gate(context, retrieved):
                found = merged(cascade.release, retrieved, gate_open=True)
                asked.append((context, found.first(_GOLDEN_CANDIDATES)))
            if len(asked) == GOLDENS:
                break
        write_rankers(rankers, late, asked, destination)

    def _retrieval(self, destination: Destination) -> Release:
        """Return the release as far as its channels go."""
        return Release(
            surface=self.recipe.surface,
            version=destination.version,
            channels=tuple(release_channel(channel, destination) for channel in self.recipe.channels),
            merged=self.recipe.merged,
            exclude_actions=self.recipe.exclude_actions,
        )

    def _release(self, destination: Destination, as_of_ms: int, learned: "_Learned") -> Release:
        recipe = self.recipe

        def scorer(name: str, stage: RankerRecipe[M] | None) -> ReleaseScorer | None:
            if stage is None:
                return None
            return ReleaseScorer(
                model=destination.model(name), candidates=stage.candidates, budget_ms=stage.budget_ms
            )

        retrieval = self._retrieval(destination)
        if learned.merge:
            retrieval = replace(retrieval, channels=reweighted(retrieval.channels, learned.merge.weights))
        return replace(
            retrieval,
            gate=replace(recipe.gate, model=destination.model(GATE) if recipe.gate_model else None),
            pre_ranker=scorer(PRE_RANKER, recipe.pre_ranker),
            ranker=scorer(RANKER, recipe.ranker),
            task_exponents=learned.rankers.exponents if learned.rankers else {},
            attributes=recipe.attributes,
            history_limit=recipe.history_limit,
            as_of_ms=as_of_ms,
        )


def models_of(recipe: Recipe, destination: Destination) -> tuple[ModelVersion, ...]:
    """Return every model that the recipe makes."""
    models = {PRE_RANKER: recipe.pre_ranker, RANKER: recipe.ranker, GATE: recipe.gate_model}
    trained = [name for name, config in models.items() if config is not None]
    return tuple(destination.model(name) for name in (*(c.name for c in recipe.channels), *trained))
