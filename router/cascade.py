"""One search from gate to page: gate → channels → merge → pre-ranking → ranking → diversity → page.

Consecutive stages that the same shards hold are asked for in one call, all others one by one. What fails or
has no time is left out and named in the gaps. The order falls back from ranking to pre-ranking to merging;
the cascade fails only when no channel answers.
"""

from dataclasses import dataclass, replace

from router.answer import Answer, Explanation, StageTiming
from router.contributions import contributions
from router.coverage import Gap
from router.gate import GateDecision
from router.gatekeeper import Gatekeeper
from router.page import page
from router.retrieval import Retrieved, retrieve, retrieve_gated
from router.scoring import Scored, ScoringStage, intake, kept
from router.search import Search, Stages
from router.together import (
    NO_ROOM,
    Unit,
    ask_together,
    call_of,
    gaps_of,
    skipped,
    timings_of,
    units_of,
    without_scorers,
)
from services.codec import CascadeAnswer
from services.tracing import part
from shards.candidates import EMPTY, Candidates
from shards.cascade import CascadeCall
from shards.diversity import diversified
from shards.errors import Overloaded
from shards.merging import MERGE_SCORE, PREFIXES, attributes_of, merge
from shards.release import ReleaseScorer, Stage

_UNEXPLAINED = Explanation(channels={}, merged=EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ordered:
    """What the stages so far left: candidates in the order of `score_column`, and where their texts are."""

    candidates: Candidates = EMPTY
    score_column: str = MERGE_SCORE
    attribute_sources: tuple[Candidates, ...] = ()
    gaps: tuple[Gap, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    explanation: Explanation = _UNEXPLAINED

    def followed_by(self, stage: Stage, scored: Scored) -> "_Ordered":
        """Return this with what a stage made of it; one that scored nothing leaves the order as it is."""
        gaps, timings = self.gaps + scored.gaps, self.timings + scored.timings
        if not scored.candidates:
            return replace(self, gaps=gaps, timings=timings)
        explanation = (
            replace(self.explanation, ranked=scored.candidates)
            if stage is Stage.RANKING
            else replace(self.explanation, pre_ranked=scored.candidates)
        )
        return _Ordered(
            candidates=scored.candidates,
            score_column=f"{PREFIXES[stage]}.score",
            attribute_sources=(scored.candidates, *self.attribute_sources),
            gaps=gaps,
            timings=timings,
            explanation=explanation,
        )

    def answered_by(self, call: CascadeCall, answer: CascadeAnswer) -> "_Ordered":
        """Return this with what one shard made of it in several stages."""
        last = call.steps[len(answer.done) - 1].stage
        return replace(
            self,
            candidates=answer.candidates,
            score_column=f"{PREFIXES[last]}.score" if last in PREFIXES else MERGE_SCORE,
            attribute_sources=(answer.candidates, *self.attribute_sources),
            gaps=self.gaps + gaps_of(call, answer),
            timings=self.timings + timings_of(call, answer),
        )


async def run(search: Search, stages: Stages, gatekeeper: Gatekeeper | None = None) -> Answer:
    """Answer the search; without a gatekeeper the release's rules decide alone.

    Raises `HeadraceError` when there is nothing to return.
    """
    release = search.release
    keeper = gatekeeper or Gatekeeper(rules=release.gate)
    if awaited := keeper.awaited_channel(search.context):
        gate, ordered = await _retrieved_after(awaited, keeper, search, stages)
        units = units_of(search, (), stages.held_together)
    else:
        gate, ordered = _decided(keeper, search), _Ordered()
        channels = [channel for channel in release.channels if gate.open or not channel.gated]
        units = units_of(search, channels, stages.held_together)
    for unit in units:
        ordered = await _add(unit, ordered, search, stages)
    ordered = _diversified(ordered, search)
    told = await contributions(search, ordered.candidates, stages)
    items = page(
        ordered.candidates,
        size=search.request.page_size,
        score_column=ordered.score_column,
        channels=[channel.name for channel in release.channels if gate.open or not channel.gated],
        attribute_sources=ordered.attribute_sources,
        shown=release.attributes,
    )
    return Answer(
        items=told.on(items),
        gate=gate,
        release=release,
        gaps=ordered.gaps + told.gaps,
        timings=ordered.timings,
        explanation=ordered.explanation,
    )


def _decided(keeper: Gatekeeper, search: Search, lexical: Candidates | None = None) -> GateDecision:
    with part("gate") as span:
        gate = keeper.decide(search.context, lexical)
        if span:
            span.tell({"headrace.gate.open": gate.open, "headrace.gate.reason": gate.reason})
            span.tell({"headrace.gate.version": gate.version})
            if gate.probability is not None:
                span.tell({"headrace.gate.probability": gate.probability})
    return gate


async def _retrieved_after(
    awaited: str, keeper: Gatekeeper, search: Search, stages: Stages
) -> tuple[GateDecision, _Ordered]:
    """Ask the channels that are not gated, decide by what the awaited one found, and maybe ask the others."""
    decisions: list[GateDecision] = []

    def opens(lexical: Candidates | None) -> bool:
        decisions.append(_decided(keeper, search, lexical))
        return decisions[-1].open

    retrieved = await retrieve_gated(search, awaited, opens, stages)
    return decisions[-1], _merged(retrieved, _merged_limit(search))


async def _add(unit: Unit, ordered: _Ordered, search: Search, stages: Stages) -> _Ordered:
    """Have one shard do all of the unit, or go through it stage by stage."""
    merged = _merged_limit(search)
    if unit.together and (unit.channels or ordered.candidates):
        call = call_of(search, unit, ordered.candidates, merged)
        try:
            answer = await ask_together(call, unit, search, stages)
        except Overloaded as error:
            return await _with_less(call, unit, ordered, search, stages, error)
        if answer:
            return ordered.answered_by(call, answer)
    if unit.channels:
        ordered = _merged(await retrieve(search, unit.channels, stages), merged)
    for stage, scorer in unit.scorers:
        scored = await _scoring(search, stage, scorer, stages).score(search, ordered.candidates)
        ordered = ordered.followed_by(stage, scored)
    return ordered


async def _with_less(
    call: CascadeCall, unit: Unit, ordered: _Ordered, search: Search, stages: Stages, error: Overloaded
) -> _Ordered:
    """Leave out the scorers of a unit for which no shard has room; raises the error where none are left."""
    bare = without_scorers(call)
    if bare.steps == call.steps:
        raise error
    if bare.steps:
        answer = await ask_together(bare, unit, search, stages)
        if answer is None:
            raise error
        ordered = ordered.answered_by(bare, answer)
    gaps = skipped(call.steps[len(bare.steps) :], NO_ROOM)
    return replace(ordered, gaps=ordered.gaps + gaps)


def _merged_limit(search: Search) -> int:
    return max(search.release.merged, search.request.page_size)


def _merged(retrieved: Retrieved, limit: int) -> _Ordered:
    merged = merge(retrieved.results, limit=limit)
    by_channel = retrieved.by_channel()
    return _Ordered(
        candidates=merged,
        attribute_sources=tuple(by_channel.values()),
        gaps=retrieved.gaps,
        timings=retrieved.timings,
        explanation=Explanation(channels=by_channel, merged=merged),
    )


def _diversified(ordered: _Ordered, search: Search) -> _Ordered:
    """Return the candidates in the order that the release's diversity gives them."""
    diversity = search.release.diversity
    if diversity is None or not ordered.candidates:
        return ordered
    first = ordered.candidates.item_ids[: diversity.candidates]
    texts = attributes_of(first, ordered.attribute_sources, diversity.reads())
    with part("diversity"):
        candidates = diversified(ordered.candidates, texts, diversity, size=search.request.page_size)
    return replace(
        ordered, candidates=candidates, explanation=replace(ordered.explanation, diversified=candidates)
    )


def _scoring(search: Search, stage: Stage, scorer: ReleaseScorer, stages: Stages) -> ScoringStage:
    return ScoringStage(
        stage=stage,
        scorer=scorer,
        intake=intake(search, scorer),
        keep=kept(search, stage),
        ask=stages.rank if stage is Stage.RANKING else stages.pre_rank,
    )
