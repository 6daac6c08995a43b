"""One search from gate to page: gate → channels → merge → pre-ranking → ranking → page.

What fails or has no time is left out and named in the gaps. The order falls back from ranking to
pre-ranking to merging; the cascade fails only when no channel answers.
"""

from router.answer import Answer, Explanation
from router.gate import decide
from router.page import page
from router.retrieval import Retrieved, retrieve
from router.scoring import PREFIXES, Scored, ScoringStage
from router.search import Search, Stages
from shards.candidates import Candidates
from shards.merging import MERGE_SCORE, merge
from shards.release import Stage


async def run(search: Search, stages: Stages) -> Answer:
    """Answer the search. Raises `HeadraceError` when there is nothing to return."""
    release, request = search.release, search.request
    gate = decide(release.gate, search.context)
    channels = [channel for channel in release.channels if gate.open or not channel.gated]
    retrieved = await retrieve(search, channels, stages)
    merged = merge(retrieved.results, limit=max(release.merged, request.page_size))
    pre_ranked = await _pre_rank(search, stages, merged)
    ranked = await _rank(search, stages, pre_ranked.candidates or merged)
    last, score_column = _last(merged, pre_ranked, ranked)
    return Answer(
        items=page(
            last,
            size=request.page_size,
            score_column=score_column,
            channels=[channel.name for channel in channels],
            attribute_sources=_attribute_sources(retrieved, pre_ranked, ranked),
        ),
        gate=gate,
        release=release,
        gaps=retrieved.gaps + pre_ranked.gaps + ranked.gaps,
        timings=retrieved.timings + pre_ranked.timings + ranked.timings,
        explanation=Explanation(
            channels=retrieved.by_channel(),
            merged=merged,
            pre_ranked=pre_ranked.candidates,
            ranked=ranked.candidates,
        ),
    )


async def _pre_rank(search: Search, stages: Stages, merged: Candidates) -> Scored:
    scorer, ranker = search.release.pre_ranker, search.release.ranker
    if scorer is None:
        return Scored()
    stage = ScoringStage(
        stage=Stage.PRE_RANKING,
        scorer=scorer,
        intake=_intake(search, scorer.candidates),
        keep=_intake(search, ranker.candidates) if ranker else _page_or_all(search),
        ask=stages.pre_rank,
    )
    return await stage.score(search, merged)


async def _rank(search: Search, stages: Stages, candidates: Candidates) -> Scored:
    scorer = search.release.ranker
    if scorer is None:
        return Scored()
    stage = ScoringStage(
        stage=Stage.RANKING,
        scorer=scorer,
        intake=_intake(search, scorer.candidates),
        keep=_page_or_all(search),
        ask=stages.rank,
    )
    return await stage.score(search, candidates)


def _intake(search: Search, candidates: int) -> int:
    """Return what a scorer is given at most; a longer page raises it, so that one stage scores all of it."""
    return max(candidates, search.request.page_size)


def _page_or_all(search: Search) -> int:
    return 0 if search.request.explain else search.request.page_size


def _last(merged: Candidates, pre_ranked: Scored, ranked: Scored) -> tuple[Candidates, str]:
    """Return the candidates of the last stage that scored any, and the column that orders them."""
    if ranked.candidates:
        return ranked.candidates, f"{PREFIXES[Stage.RANKING]}.score"
    if pre_ranked.candidates:
        return pre_ranked.candidates, f"{PREFIXES[Stage.PRE_RANKING]}.score"
    return merged, MERGE_SCORE


def _attribute_sources(retrieved: Retrieved, pre_ranked: Scored, ranked: Scored) -> list[Candidates]:
    return [ranked.candidates, pre_ranked.candidates, *retrieved.by_channel().values()]
