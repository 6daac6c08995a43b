"""The scoring stages: what the time allows is scored, and what cannot be scored is named, not lost."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from router.answer import StageTiming
from router.budget import allow
from router.coverage import Gap, GapReason, reason_of
from router.patience import ask_patiently
from router.search import Search
from services.codec import Scoring, StageAnswer
from shards.candidates import EMPTY, Candidates
from shards.errors import HeadraceError
from shards.merging import PREFIXES, with_columns
from shards.release import ReleaseScorer, Stage

Ask = Callable[[Scoring, float], Awaitable[StageAnswer]]
"""Asks one stage within a time in seconds."""


def intake(search: Search, scorer: ReleaseScorer) -> int:
    """Return what a scorer is given at most; a longer page raises it, so that one stage scores all of it."""
    return max(scorer.candidates, search.request.page_size)


def kept(search: Search, stage: Stage) -> int:
    """Return how many of the best a scorer gives back: what the next one takes, or the page; 0 for all."""
    ranker = search.release.ranker
    if stage is Stage.PRE_RANKING and ranker:
        return intake(search, ranker)
    return 0 if search.request.explain else search.depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Candidates in the order of the stage with its columns joined on; empty when it scored nothing."""

    candidates: Candidates = EMPTY
    gaps: tuple[Gap, ...] = ()
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringStage:
    """One scoring stage of a search: `intake` candidates go in at most, the best `keep` come out (0: all)."""

    stage: Stage
    scorer: ReleaseScorer
    intake: int
    keep: int
    ask: Ask

    async def score(self, search: Search, candidates: Candidates) -> Scored:
        """Score the first candidates, as many as the stage takes and the time allows."""
        wanted = min(len(candidates), self.intake)
        if not wanted:
            return Scored()
        allowance = allow(
            remaining_s=search.deadline.remaining_s(),
            budget_s=self.scorer.budget_ms / 1e3,
            wanted=wanted,
            least=search.request.page_size,
        )
        if allowance is None:
            return Scored(gaps=(self._gap(GapReason.SKIPPED, "no time was left to ask"),))
        asked = candidates.first(allowance.candidates)
        call, before_s = self._call(search, asked), search.deadline.remaining_s()
        try:
            answer = await ask_patiently(
                lambda within_s: self.ask(call, within_s), allowance.timeout_s, search.deadline
            )
        except HeadraceError as error:
            return Scored(gaps=(self._gap(reason_of(error), str(error)),))
        shrunk = f"scored {allowance.candidates} of {wanted} candidates: time was short"
        return self._joined(
            asked,
            answer,
            gaps=(self._gap(GapReason.SHRUNK, shrunk),) if allowance.candidates < wanted else (),
            total_s=before_s - search.deadline.remaining_s(),
        )

    def _call(self, search: Search, asked: Candidates) -> Scoring:
        ranking = self.stage is Stage.RANKING
        return Scoring(
            model=self.scorer.model,
            context=search.context,
            candidates=asked,
            keep=self.keep,
            task_exponents=search.release.task_exponents if ranking else {},
            attributes=search.release.texts(),
            attribute_count=search.depth,
        )

    def _joined(
        self, asked: Candidates, answer: StageAnswer, *, gaps: tuple[Gap, ...], total_s: float
    ) -> Scored:
        """Join the answer onto what was asked; an answer that is of no use is a gap."""
        try:
            joined = with_columns(asked, PREFIXES[self.stage], answer.candidates)
        except ValueError as error:
            return Scored(gaps=(self._gap(GapReason.FAILED, str(error)),))
        if not len(joined):
            nothing = f"knows none of the {len(asked)} candidates"
            return Scored(gaps=(self._gap(GapReason.FAILED, nothing),))
        return Scored(candidates=joined, gaps=gaps, timings=(self._timing(answer, total_s),))

    def _timing(self, answer: StageAnswer, total_s: float) -> StageTiming:
        return StageTiming(
            stage=self.stage,
            model=answer.model,
            shard_id=answer.shard_id,
            total_s=total_s,
            compute_s=answer.compute_s,
            queue_s=answer.queue_s,
            candidates=len(answer.candidates),
        )

    def _gap(self, reason: GapReason, detail: str) -> Gap:
        return Gap(stage=self.stage, model=self.scorer.model, reason=reason, detail=detail)
