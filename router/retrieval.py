"""The first stage: every channel of the release at once, each failing alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from router.answer import StageTiming
from router.budget import Allowance, Deadline, allow
from router.coverage import Gap, GapReason, nothing_to_return, reason_of
from router.search import Search, Stages
from services.codec import Retrieval, StageAnswer
from shards.candidates import Candidates
from shards.errors import DeadlineExceeded, HeadraceError
from shards.merging import ChannelResult
from shards.release import ReleaseChannel, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """What the channels brought, in the order of the release whatever the order of their answers."""

    results: tuple[ChannelResult, ...]
    gaps: tuple[Gap, ...]
    timings: tuple[StageTiming, ...]

    def by_channel(self) -> dict[str, Candidates]:
        """Return the candidates of every channel that answered."""
        return {result.name: result.candidates for result in self.results}


async def retrieve(search: Search, channels: Sequence[ReleaseChannel], stages: Stages) -> Retrieved:
    """Ask the channels at once; one that fails becomes a gap.

    When none answers within the release's budget and some were only late, those get what is left of
    the search's own time: a late answer beats none. Raises the error that fits when there are channels
    and all of them fail: there is nothing to return.
    """
    budget_s = search.release.retrieval_budget_ms / 1e3
    outcomes = await _ask_all(search, channels, stages, budget_s)
    if late := _late(channels, outcomes):
        again = await _ask_all(search, late, stages, search.deadline.remaining_s())
        outcomes = [o for o in outcomes if not _was_late(o)] + again
    gaps = tuple(outcome.gap for outcome in outcomes if isinstance(outcome, _Failed))
    answered = [outcome for outcome in outcomes if isinstance(outcome, _Answered)]
    if channels and not answered:
        errors = [outcome.error for outcome in outcomes if isinstance(outcome, _Failed)]
        raise nothing_to_return(gaps, errors)
    return Retrieved(
        results=tuple(outcome.result for outcome in answered),
        gaps=gaps,
        timings=tuple(outcome.timing for outcome in answered),
    )


@dataclass(frozen=True, slots=True)
class _Answered:
    result: ChannelResult
    timing: StageTiming


@dataclass(frozen=True, slots=True)
class _Failed:
    error: HeadraceError
    gap: Gap


_Outcome = _Answered | _Failed


async def _ask_all(
    search: Search, channels: Sequence[ReleaseChannel], stages: Stages, budget_s: float
) -> list[_Outcome]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(search, channel, stages, budget_s)) for channel in channels]
    return [task.result() for task in tasks]


def _late(channels: Sequence[ReleaseChannel], outcomes: Sequence[_Outcome]) -> list[ReleaseChannel]:
    """Return the channels that did not answer in time, if not a single one did."""
    if any(isinstance(outcome, _Answered) for outcome in outcomes):
        return []
    return [c for c, outcome in zip(channels, outcomes, strict=True) if _was_late(outcome)]


def _was_late(outcome: _Outcome) -> bool:
    return isinstance(outcome, _Failed) and outcome.gap.reason is GapReason.DEADLINE


async def _ask(search: Search, channel: ReleaseChannel, stages: Stages, budget_s: float) -> _Outcome:
    allowance = _allowance(search, channel, budget_s)
    if allowance is None:
        error = DeadlineExceeded("no time was left to ask")
        return _Failed(error, _gap(channel, GapReason.SKIPPED, error))
    started = Deadline.after(0.0, search.deadline.clock)
    try:
        answer = await stages.retrieve(_call(search, channel), allowance.timeout_s)
    except HeadraceError as failure:
        return _Failed(failure, _gap(channel, reason_of(failure), failure))
    result = ChannelResult(
        name=channel.name, weight=channel.weight, quota=channel.quota, candidates=answer.candidates
    )
    return _Answered(result, _timing(channel, answer, -started.remaining_s()))


def _allowance(search: Search, channel: ReleaseChannel, budget_s: float) -> Allowance | None:
    return allow(
        remaining_s=search.deadline.remaining_s(),
        budget_s=budget_s,
        wanted=channel.k,
        least=channel.k,
    )


def _call(search: Search, channel: ReleaseChannel) -> Retrieval:
    release, page_size = search.release, search.request.page_size
    # Scorers name the page's attributes again; without them any of the candidates may reach the page.
    described = page_size if release.pre_ranker or release.ranker else channel.k
    return Retrieval(
        model=channel.model,
        context=search.context,
        k=channel.k,
        filter=search.request.filter,
        attributes=release.attributes,
        attribute_count=described,
    )


def _gap(channel: ReleaseChannel, reason: GapReason, error: HeadraceError) -> Gap:
    return Gap(
        stage=Stage.RETRIEVAL,
        channel=channel.name,
        model=channel.model,
        reason=reason,
        detail=str(error),
    )


def _timing(channel: ReleaseChannel, answer: StageAnswer, total_s: float) -> StageTiming:
    return StageTiming(
        stage=Stage.RETRIEVAL,
        channel=channel.name,
        model=answer.model,
        shard_id=answer.shard_id,
        total_s=total_s,
        compute_s=answer.compute_s,
        candidates=len(answer.candidates),
    )
