"""One search from gate to page: gate → channels → merge → pre-ranking → ranking → page.

What fails or has no time is left out and named in the gaps. The order falls back from ranking to
pre-ranking to merging; the cascade fails only when no channel answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from router.answer import Answer, Explanation, StageTiming
from router.coverage import Gap
from router.gate import decide
from router.page import page
from router.retrieval import Retrieved, retrieve
from router.scoring import Ask, Scored, ScoringStage, intake, kept
from router.search import Search, Stages
from router.together import ask_together, call_of, gaps_of, may_go_together, timings_of
from shards.candidates import EMPTY, Candidates
from shards.merging import MERGE_SCORE, PREFIXES, merge
from shards.release import ReleaseChannel, ReleaseScorer, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ordered:
    """What the stages left: candidates in the order of `score_column`, and where their texts are."""

    candidates: Candidates
    score_column: str
    attribute_sources: Sequence[Candidates]
    gaps: tuple[Gap, ...]
    timings: tuple[StageTiming, ...]
    explanation: Explanation


async def run(search: Search, stages: Stages) -> Answer:
    """Answer the search. Raises `HeadraceError` when there is nothing to return."""
    release = search.release
    gate = decide(release.gate, search.context)
    channels = [channel for channel in release.channels if gate.open or not channel.gated]
    ordered = await _together(search, channels, stages) or await _one_by_one(search, channels, stages)
    return Answer(
        items=page(
            ordered.candidates,
            size=search.request.page_size,
            score_column=ordered.score_column,
            channels=[channel.name for channel in channels],
            attribute_sources=ordered.attribute_sources,
        ),
        gate=gate,
        release=release,
        gaps=ordered.gaps,
        timings=ordered.timings,
        explanation=ordered.explanation,
    )


async def _together(search: Search, channels: Sequence[ReleaseChannel], stages: Stages) -> _Ordered | None:
    """Have one shard run all stages; None where that is not possible."""
    if not may_go_together(search, channels):
        return None
    call = call_of(search, channels, merged=_merged(search))
    answer = await ask_together(call, search, stages)
    if answer is None:
        return None
    last = call.steps[len(answer.done) - 1].stage
    return _Ordered(
        candidates=answer.candidates,
        score_column=f"{PREFIXES[last]}.score" if last in PREFIXES else MERGE_SCORE,
        attribute_sources=(answer.candidates,),
        gaps=gaps_of(call, answer),
        timings=timings_of(call, answer),
        explanation=Explanation(channels={}, merged=EMPTY),
    )


async def _one_by_one(search: Search, channels: Sequence[ReleaseChannel], stages: Stages) -> _Ordered:
    """Ask for every stage wherever its model is, and make do with what answers."""
    retrieved = await retrieve(search, channels, stages)
    merged = merge(retrieved.results, limit=_merged(search))
    release = search.release
    pre_ranked = await _score(search, Stage.PRE_RANKING, release.pre_ranker, stages.pre_rank, merged)
    last_list = pre_ranked.candidates or merged
    ranked = await _score(search, Stage.RANKING, release.ranker, stages.rank, last_list)
    last, score_column = _last(merged, pre_ranked, ranked)
    return _Ordered(
        candidates=last,
        score_column=score_column,
        attribute_sources=_attribute_sources(retrieved, pre_ranked, ranked),
        gaps=retrieved.gaps + pre_ranked.gaps + ranked.gaps,
        timings=retrieved.timings + pre_ranked.timings + ranked.timings,
        explanation=Explanation(
            channels=retrieved.by_channel(),
            merged=merged,
            pre_ranked=pre_ranked.candidates,
            ranked=ranked.candidates,
        ),
    )


def _merged(search: Search) -> int:
    return max(search.release.merged, search.request.page_size)


async def _score(
    search: Search, stage: Stage, scorer: ReleaseScorer | None, ask: Ask, candidates: Candidates
) -> Scored:
    if scorer is None:
        return Scored()
    scoring = ScoringStage(
        stage=stage, scorer=scorer, intake=intake(search, scorer), keep=kept(search, stage), ask=ask
    )
    return await scoring.score(search, candidates)


def _last(merged: Candidates, pre_ranked: Scored, ranked: Scored) -> tuple[Candidates, str]:
    """Return the candidates of the last stage that scored any, and the column that orders them."""
    if ranked.candidates:
        return ranked.candidates, f"{PREFIXES[Stage.RANKING]}.score"
    if pre_ranked.candidates:
        return pre_ranked.candidates, f"{PREFIXES[Stage.PRE_RANKING]}.score"
    return merged, MERGE_SCORE


def _attribute_sources(retrieved: Retrieved, pre_ranked: Scored, ranked: Scored) -> list[Candidates]:
    return [ranked.candidates, pre_ranked.candidates, *retrieved.by_channel().values()]
