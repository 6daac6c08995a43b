"""How scores and features of a release are spread, noted in its bundles for shards to compare with.

The searches are those of the test split, of which no model has seen what they led to: what models learnt from
they score too well, and channels remember. Only what was asked is read of them.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.manifest import MANIFEST_FILE
from shards.reference import REFERENCE_FILE, Reference, reference_of, write_reference
from shards.release import ModelVersion, Release
from shards.search_context import Filter, SearchContext
from shards.stages import Retriever, Scorer
from shards.watched_values import BEST, Watched, watched_values
from training.datasets.contexts import search_contexts
from training.datasets.splits import rows_of
from training.datasets.tables import Dataset
from training.evaluation.offline import GateRule, open_cascade, retrieve, stages

SEARCHES = 300
"""Searches that a reference is made of."""

LEAST = 50
"""Fewer tell too little."""


def reference_searches(dataset: Dataset, *, history_limit: int, seed: int) -> list[SearchContext]:
    """Return a sample of the searches that nothing was trained on, in order of time."""
    queries = rows_of(dataset.queries, "test")
    count = min(SEARCHES, len(queries))
    picked = np.sort(np.random.default_rng(seed).choice(len(queries), count, replace=False))
    return list(search_contexts(dataset, queries.take(pa.array(picked)), history_limit=history_limit))


def write_references(
    release: Release, models_dir: Path, contexts: list[SearchContext], gate: GateRule
) -> Mapping[ModelVersion, Reference]:
    """Ask the release and note in each of its bundles how scores and features were spread; return that.

    Bundles are written anew, so none of them may have been published yet. Nothing is noted where there are
    too few searches, or for partitions, of which none answers for itself.
    """
    if len(contexts) < LEAST:
        return {}
    found = {
        model: reference
        for model, seen in watched_of(release, models_dir, contexts, gate).items()
        if len(seen) >= LEAST and (reference := reference_of(seen)) is not None
    }
    for model, reference in found.items():
        with_reference(models_dir, model, reference)
    return found


def with_reference(models_dir: Path, model: ModelVersion, reference: Reference) -> None:
    """Write a bundle anew with this reference; raises what `write_bundle` raises."""
    path = models_dir / model.model / model.version
    bundle = open_bundle(path, model)

    def fill(folder: Path) -> None:
        ours = shutil.ignore_patterns(MANIFEST_FILE, REFERENCE_FILE)
        shutil.copytree(path, folder, dirs_exist_ok=True, ignore=ours)
        write_reference(folder, reference)

    with TemporaryDirectory(prefix=".noting-", dir=models_dir) as scratch:
        written = write_bundle(Path(scratch), bundle.manifest, fill)
        shutil.rmtree(path)
        written.rename(path)


def watched_of(
    release: Release, models_dir: Path, contexts: list[SearchContext], gate: GateRule
) -> Mapping[ModelVersion, list[Watched]]:
    """Return what is watched of every answer, by the bundle that gave it."""
    cascade = open_cascade(release, models_dir)
    seen: dict[ModelVersion, list[Watched]] = {}
    channels = {c.name: _Noted(cascade.retrievers[c.name]) for c in release.channels if c.partitions < 2}
    pre_ranker, ranker = _noted(cascade.pre_ranker), _noted(cascade.ranker)
    watched = replace(
        cascade,
        retrievers={**cascade.retrievers, **channels},
        pre_ranker=pre_ranker,
        ranker=ranker,
    )
    for context in contexts:
        retrieved = retrieve(watched, context)
        gate_open = gate(context, retrieved)
        stages(watched, context, retrieved, gate_open=gate_open, depth=BEST)
        for channel in release.channels:
            if channel.name in channels and (gate_open or not channel.gated):
                seen.setdefault(channel.model, []).extend(channels[channel.name].values)
        for pinned, scorer in ((release.pre_ranker, pre_ranker), (release.ranker, ranker)):
            if pinned is not None and scorer is not None:
                seen.setdefault(pinned.model, []).extend(scorer.values)
        for noted in (*channels.values(), pre_ranker, ranker):
            if noted is not None:
                noted.values.clear()
    return seen


@dataclass(frozen=True, slots=True)
class _Noted:
    """A servable that keeps what is watched of its answers."""

    servable: Retriever | Scorer
    values: list[Watched] = field(default_factory=list)

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        assert isinstance(self.servable, Retriever)
        answer = self.servable.retrieve(context, k, allowed, attributes, attribute_count)
        self._note(context, None, answer)
        return answer

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        assert isinstance(self.servable, Scorer)
        answer = self.servable.score(context, candidates, keep, task_exponents, attributes, attribute_count)
        self._note(context, candidates, answer)
        return answer

    def _note(self, context: SearchContext, asked: Candidates | None, answer: Candidates) -> None:
        if answer.item_ids:
            self.values.append(watched_values(self.servable, context, asked, answer))


def _noted(scorer: Scorer | None) -> _Noted | None:
    return None if scorer is None else _Noted(scorer)
