"""The whole cascade in one process: where a release puts the relevant item of every query.

It runs the very servables and merging that shards and routers run, one search after another, without
network, budgets or degradation. What the cluster answers has to agree with it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from shards.bundle import Bundle, open_bundle
from shards.candidates import Candidates
from shards.diversity import diversified
from shards.errors import MismatchedBundle
from shards.exclusion import exclusion
from shards.gathering import Gathered
from shards.manifest import MANIFEST_FILE
from shards.merging import PREFIXES, ChannelResult, attributes_of, merge, with_columns
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage
from shards.search_context import SearchContext
from shards.servable import open_servable
from shards.stages import Retriever, Scorer, Servable
from training.evaluation.judgements import Judged
from training.evaluation.report import (
    BM25,
    DEPTH,
    DIVERSIFIED,
    HYBRID,
    PRE_RANKED,
    RANKED,
    Ranks,
    rank_of,
)

GateRule = Callable[[SearchContext, Mapping[str, Candidates]], bool]
"""Whether a search runs the gated channels, told what every channel would find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """A release with its bundles opened."""

    release: Release
    retrievers: dict[str, Retriever]
    """By channel."""
    pre_ranker: Scorer | None
    ranker: Scorer | None
    yardsticks: Mapping[str, Retriever] = field(default_factory=dict)
    """By ranking: what no channel serves but a reader wants to compare with, such as BM25 alone."""


def open_cascade(release: Release, models_dir: Path, *, device: str = "cpu") -> Cascade:
    """Verify and open every bundle that the release pins.

    Raises `BundleError` for one that must not be served or is of another stage than the release says.
    """

    def bundle(model: ModelVersion) -> Bundle:
        return open_bundle(models_dir / model.model / model.version, expect=model)

    def scorer(pinned: ReleaseScorer | None) -> Scorer | None:
        return (
            None if pinned is None else _as_scorer(open_servable(bundle(pinned.model), device), pinned.model)
        )

    bundles = {c.name: [bundle(model) for model in c.bundles()] for c in release.channels}
    return Cascade(
        release=release,
        retrievers={name: _retriever(held, device) for name, held in bundles.items()},
        pre_ranker=scorer(release.pre_ranker),
        ranker=scorer(release.ranker),
        yardsticks=_yardsticks(chain.from_iterable(bundles.values())),
    )


def evaluate(
    cascade: Cascade,
    judged: Iterable[Judged],
    *,
    gate: GateRule,
    on_query: Callable[[], None] = lambda: None,
) -> Ranks:
    """Return where each ranking puts each query's relevant item; `on_query` is called after each one.

    The rankings are every channel alone (asked whatever the gate says), and what the gate lets through
    merged, pre-ranked, ranked and made diverse, as far as the release goes.
    """
    query_ids, with_history = [], []
    by_ranking: dict[str, list[int]] = {}
    for query in judged:
        query_ids.append(query.query_id)
        with_history.append(bool(query.context.user.history.item_ids))
        retrieved = retrieve(cascade, query.context)
        gate_open = gate(query.context, retrieved)
        for ranking, item_ids in rankings(cascade, query.context, retrieved, gate_open=gate_open).items():
            by_ranking.setdefault(ranking, []).append(rank_of(item_ids, query.relevant))
        on_query()
    return Ranks(
        query_ids=tuple(query_ids),
        with_history=np.array(with_history, np.bool_),
        by_ranking={name: np.array(ranks, np.int64) for name, ranks in by_ranking.items()},
    )


def rankings(
    cascade: Cascade, context: SearchContext, retrieved: Mapping[str, Candidates], *, gate_open: bool
) -> dict[str, tuple[str, ...]]:
    """Return the item ids of every ranking, best first; `retrieved` is what every channel found.

    The search is for a page of `DEPTH` items, so no stage takes in or keeps fewer. A scorer that knows
    none of the items leaves the order as it was.
    """
    found = {
        name: retriever.retrieve(context, DEPTH, exclusion(cascade.release, context), (), 0).item_ids
        for name, retriever in cascade.yardsticks.items()
    }
    found |= {name: candidates.item_ids for name, candidates in retrieved.items()}
    return found | staged(cascade, context, retrieved, gate_open=gate_open)


def staged(
    cascade: Cascade,
    context: SearchContext,
    retrieved: Mapping[str, Candidates],
    *,
    gate_open: bool,
    depth: int = DEPTH,
) -> dict[str, tuple[str, ...]]:
    """Return the item ids of what the gate lets through merged, pre-ranked, ranked and made diverse.

    The search is for a page of `depth` items, so no stage takes in or keeps fewer.
    """
    steps = stages(cascade, context, retrieved, gate_open=gate_open, depth=depth)
    return {name: candidates.item_ids for name, candidates in steps.items()}


def stages(
    cascade: Cascade,
    context: SearchContext,
    retrieved: Mapping[str, Candidates],
    *,
    gate_open: bool,
    depth: int = DEPTH,
) -> dict[str, Candidates]:
    """Return what `staged` says with the scores of all stages; the last one is the page."""
    release = cascade.release
    best = merged(release, retrieved, gate_open=gate_open, depth=depth)
    found = {HYBRID: best}
    if cascade.pre_ranker and release.pre_ranker:
        asked = best.first(max(release.pre_ranker.candidates, depth))
        keep = max(release.ranker.candidates, depth) if release.ranker else 0
        scored = cascade.pre_ranker.score(context, asked, keep, {}, *_described(release))
        best = with_columns(asked, PREFIXES[Stage.PRE_RANKING], scored) or best
        found[PRE_RANKED] = best
    if cascade.ranker and release.ranker:
        asked = best.first(max(release.ranker.candidates, depth))
        scored = cascade.ranker.score(context, asked, 0, release.task_exponents, *_described(release))
        best = with_columns(asked, PREFIXES[Stage.RANKING], scored) or best
        found[RANKED] = best
    if release.diversity:
        texts = attributes_of(best.item_ids, (best, *retrieved.values()), release.diversity.reads())
        found[DIVERSIFIED] = diversified(best, texts, release.diversity, size=depth)
    return found


def _described(release: Release) -> tuple[tuple[str, ...], int]:
    """Return the attributes that diversity goes by, and for how many of the first candidates."""
    diversity = release.diversity
    return (diversity.reads(), diversity.candidates) if diversity else ((), 0)


def ranks_by_gate(
    cascade: Cascade, context: SearchContext, retrieved: Mapping[str, Candidates], item_id: str
) -> tuple[int, int, int, int]:
    """Return an item's ranks merged, with the gate closed and open, and on the page so; 0 where it is not."""
    ranks = []
    for gate_open in (False, True):
        found = staged(cascade, context, retrieved, gate_open=gate_open)
        ranks.append((rank_of(found[HYBRID], item_id), rank_of(list(found.values())[-1], item_id)))
    (merged_closed, page_closed), (merged_open, page_open) = ranks
    return merged_closed, merged_open, page_closed, page_open


def retrieve(cascade: Cascade, context: SearchContext) -> dict[str, Candidates]:
    """Return what every channel finds, whatever the gate says, but for what the release leaves out."""
    release, allowed = cascade.release, exclusion(cascade.release, context)
    # Scorers name what diversity goes by again; without them any of the candidates may be among the first.
    reads = () if release.diversity is None or release.scorers() else release.diversity.reads()
    return {
        channel.name: cascade.retrievers[channel.name].retrieve(
            context, channel.k, allowed, reads, channel.k if reads else 0
        )
        for channel in release.channels
    }


def merged(
    release: Release, retrieved: Mapping[str, Candidates], *, gate_open: bool, depth: int = DEPTH
) -> Candidates:
    """Return the one list of the channels that the gate lets through, for a page of `depth` items."""
    passed = [_as_result(c, retrieved[c.name]) for c in release.channels if gate_open or not c.gated]
    return merge(passed, limit=max(release.merged, depth))


def _as_result(channel: ReleaseChannel, candidates: Candidates) -> ChannelResult:
    return ChannelResult(name=channel.name, weight=channel.weight, quota=channel.quota, candidates=candidates)


def _yardsticks(bundles: Iterable[Bundle]) -> dict[str, Retriever]:
    """Return what a lexical channel finds by its texts alone, if it lets anything else count."""
    found = {}
    for bundle in bundles:
        manifest = bundle.manifest
        if manifest.engine == "lexical" and manifest.params.get("prior"):
            params = {**manifest.params, "prior": ""}
            plain = replace(bundle, manifest=replace(manifest, params=params))
            found[BM25] = _as_retriever(open_servable(plain, "cpu"), manifest.model_version)
    return found


def _retriever(bundles: Sequence[Bundle], device: str) -> Retriever:
    """Return what answers for a channel: its bundle, or its partitions as one."""
    parts = [_as_retriever(open_servable(b, device), b.manifest.model_version) for b in bundles]
    return parts[0] if len(parts) == 1 else Gathered(tuple(parts))


def _as_retriever(servable: Servable, model: ModelVersion) -> Retriever:
    if not isinstance(servable, Retriever):
        raise MismatchedBundle(
            MANIFEST_FILE, f"{model} does not retrieve, but the release has it as a channel"
        )
    return servable


def _as_scorer(servable: Servable, model: ModelVersion) -> Scorer:
    if not isinstance(servable, Scorer):
        raise MismatchedBundle(MANIFEST_FILE, f"{model} does not score, but the release has it as a scorer")
    return servable
