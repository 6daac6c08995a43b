"""What a run learns from the queries between the early moment and the test: see `training.pipeline`."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shards.release import Release
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.embedding import Embedding, train_embedding
from training.evaluation.next_items import next_items, sampled
from training.evaluation.offline import merged, open_cascade, ranks_by_gate, retrieve
from training.gate import GateLog, TrainedGate, kept_lexical, train_gate
from training.gate_labels import page_gains, recall_gain
from training.hydration import hydrated
from training.judgements import Judgements
from training.merge_weights import FittedMerge, fitted_merge
from training.rankers import Rankers, train_rankers
from training.recipe import EMBEDDING_RECALL
from training.refreshing import Stretch, stretches
from training.release_writing import (
    known_to_gate,
    release_of,
    retrieval,
    write_channels,
    write_ranker_bundles,
)
from training.run import Run
from training.snapshot import Requests, Snapshot
from training.task_labels import task_labels
from training.trainer import Advanced, PhaseStarted

_EMBEDDING_HELD_OUT = 2000
"""Queries after the early moment by whose recall the two-tower model stops."""


_MERGE_USERS = 5000
"""Users of the valid split to whom the merge is fitted: a fixed sample."""
_NOTHING = Requests(contexts=(), item_ids=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
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


def learn(run: Run, test_ms: int, prefix: str) -> Learned:
    """Learn from what came between the early moment and the test, where anything learns."""
    recipe = run.recipe
    if not (recipe.embeds or recipe.judges or recipe.fit_merge):
        late = run.snapshot(test_ms)
        return Learned(tokenizer=run.tokenizer(late) if recipe.reads_texts else None)
    early = run.snapshot(run.early_ms(test_ms))
    tokenizer = run.tokenizer(early) if recipe.reads_texts else None
    requests = _NOTHING
    if recipe.embeds or recipe.judges:
        requests = run.requests_between(early.now_ms, test_ms, newest=recipe.ranking_queries)
    earlier = run.requests_until(early.now_ms)
    embedding = trained_embedding(run, early, tokenizer, earlier, held_out=requests[:_EMBEDDING_HELD_OUT])
    if not (recipe.judges or recipe.fit_merge):
        return Learned(tokenizer=tokenizer, embedding=embedding)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Destination(root=Path(folder), prefix=prefix, version="early")
        write_channels(run, early, tokenizer, embedding, earlier, scratch)
        if recipe.fit_merge:
            return Learned(tokenizer=tokenizer, embedding=embedding, merge=_fit_merge(run, scratch))
        judgements, log = judgements_of(run, early, requests, scratch)
        assert tokenizer is not None, "rankers and gates read texts"
        rankers = _train_rankers(run, early, tokenizer, judgements) if run.recipe.ranks else None
        if rankers and run.recipe.gate_model and run.recipe.gate_model.label == "page":
            newest = slice(-run.recipe.gate_model.searches, None)
            log = log[newest]
            betters_Q = _page_gains(run, rankers, early, requests[newest], scratch)
            log = replace(log, gain_Q=np.minimum(log.gain_Q + betters_Q, 1.0))
    return Learned(
        tokenizer=tokenizer,
        embedding=embedding,
        requests=requests,
        log=log,
        gate=_train_gate(run, early, log),
        rankers=(rankers.again or rankers) if rankers else None,
    )


def trained_embedding(
    run: Run,
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
    if not run.recipe.embeds:
        return None
    embedding = train_embedding(
        run.recipe,
        known,
        tokenizer,
        requests,
        seeded=run.seeded(),
        held_out=held_out,
        epochs=early.epochs if early else None,
        rejected_QR=rejected_QR,
        observe=run.observe,
        checkpoints=run.checkpoints,
    )
    if run.recipe.hydration is None:
        return embedding
    return hydrated(embedding, run.recipe.hydration, known, fitted_on=held_out, early=early, seed=run.seed)


def _fit_merge(run: Run, early: Destination) -> FittedMerge:
    """Return weights that suit the valid split's next items, which the early channels do not know."""
    cascade = open_cascade(retrieval(run, early), early.root)
    asked = next_items(run.dataset, "valid", history_limit=run.recipe.history_limit)
    asked = sampled(asked, _MERGE_USERS)
    run.observe(PhaseStarted(phase="fitting the merge", total=len(asked)))
    retrieved = []
    for user in asked:
        retrieved.append(retrieve(cascade, user.context))
        run.observe(Advanced())
    return fitted_merge(asked, retrieved, {c.name: c.weight for c in run.recipe.channels})


def judgements_of(
    run: Run, early: Snapshot, requests: Requests, scratch: Destination
) -> tuple[Judgements, GateLog]:
    """Return the requests with what the early channels find for them, for rankers and for the gate.

    Where releases are refreshed between trainings, so are the early channels.
    """
    release = replace(retrieval(run, scratch), as_of_ms=early.now_ms)
    run.observe(PhaseStarted(phase="finding candidates", total=len(requests)))
    candidates, lexical, gains, known = [], [], [], []
    for stretch, context, item_id in _answered(run, release, requests, scratch.root):
        retrieved = retrieve(stretch.cascade, context)
        candidates.append(merged(release, retrieved, gate_open=run.gate(context, retrieved)))
        known.append(stretch.known.items)
        if config := run.recipe.gate_model:
            lexical.append(kept_lexical(retrieved[config.channel]))
            gains.append(recall_gain(release, retrieved, item_id, config.depths))
    judgements = Judgements(
        requests=requests,
        candidates=candidates,
        labels=task_labels(run.dataset, requests, run.recipe.tasks, until_ms=known_until_ms(run.dataset)),
        known=known,
    )
    contexts = requests.contexts if lexical else ()
    return judgements, GateLog(contexts=contexts, lexical=lexical, gain_Q=np.array(gains, np.float64))


def _answered(
    run: Run, release: Release, requests: Requests, models_dir: Path
) -> Iterator[tuple[Stretch, SearchContext, str]]:
    """Yield each request with what answers it, as fresh as it is when serving."""
    times_ms = [context.now_ms for context in requests.contexts]
    for stretch in stretches(run, release, models_dir, times_ms, run.recipe.refresh_days):
        part = requests[stretch.searches]
        for context, item_id in zip(part.contexts, part.item_ids, strict=True):
            yield stretch, context, item_id
            run.observe(Advanced())


def _train_rankers(run: Run, early: Snapshot, tokenizer: Tokenizer, judgements: Judgements) -> Rankers:
    cut = int(len(judgements) * (1 - run.recipe.holdout))
    return train_rankers(
        run.recipe,
        early,
        tokenizer,
        judgements[:cut],
        judgements[cut:],
        seeded=run.seeded(),
        observe=run.observe,
        checkpoints=run.checkpoints,
    )


def _page_gains(
    run: Run, rankers: Rankers, early: Snapshot, requests: Requests, scratch: Destination
) -> NDArray[np.float64]:
    """Return what an open gate adds to the page that the rankers make of each request [Q]."""
    write_ranker_bundles(run, rankers, early, requests.contexts, scratch)
    release = release_of(run, scratch, early.now_ms, rankers=rankers)
    run.observe(PhaseStarted(phase="pages with and without embeddings", total=len(requests)))
    ranks = []
    for stretch, context, item_id in _answered(run, release, requests, scratch.root):
        retrieved = retrieve(stretch.cascade, context)
        ranks.append(ranks_by_gate(stretch.cascade, context, retrieved, item_id))
    return page_gains(ranks)


def _train_gate(run: Run, early: Snapshot, log: GateLog) -> TrainedGate | None:
    """Train the gate's model as the rankers are: the last `holdout` of the searches stops it."""
    config = run.recipe.gate_model
    if config is None:
        return None
    cut = int(len(log) * (1 - run.recipe.holdout))
    return train_gate(
        config,
        known_to_gate(run, early, config),
        log[:cut],
        log[cut:],
        seeded=run.seeded(),
        observe=run.observe,
        checkpoints=run.checkpoints,
    )
