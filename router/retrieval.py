"""The first stage: every channel of the release at once, each failing alone.

A channel whose catalogue is partitioned fails as a channel when none of its partitions answers; one that is
missing beside others is a gap.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.answer import StageTiming
from router.budget import LEAST_CALL_S, RESERVE_S, Allowance, allow
from router.coverage import Gap, GapReason, nothing_to_return, reason_of
from router.scatter import Refusal, Reply, gathered, scatter
from router.search import Search, Stages
from services.codec import Retrieval
from shards.candidates import Candidates
from shards.errors import DeadlineExceeded, HeadraceError
from shards.merging import ChannelResult
from shards.release import ModelVersion, ReleaseChannel, Stage


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
    return _retrieved(await _ask_until_one_answers(search, channels, stages, _budget_s(search)))


async def retrieve_gated(
    search: Search, awaited: str, opens: Callable[[Candidates | None], bool], stages: Stages
) -> Retrieved:
    """Ask the channels that are not gated and then, if `opens` says so, the others in what time is left.

    `opens` is told what the `awaited` channel found, None where that failed. Otherwise as `retrieve`.
    """
    channels, budget_s = search.release.channels, _budget_s(search)
    at_first, before_s = [c for c in channels if not c.gated], search.deadline.remaining_s()
    found = dict(zip(at_first, await _ask_until_one_answers(search, at_first, stages, budget_s), strict=True))
    result = next((each.result for c, each in found.items() if c.name == awaited), None)
    if opens(result.candidates if result else None):
        spent_s = before_s - search.deadline.remaining_s()
        gated = [c for c in channels if c.gated]
        asked = await _ask_all(search, gated, stages, max(budget_s - spent_s, LEAST_CALL_S))
        found |= dict(zip(gated, asked, strict=True))
    return _retrieved([found[c] for c in channels if c in found])


def _budget_s(search: Search) -> float:
    return search.release.retrieval_budget_ms / 1e3


async def _ask_until_one_answers(
    search: Search, channels: Sequence[ReleaseChannel], stages: Stages, budget_s: float
) -> list["_Asked"]:
    """Ask the channels, and those that were late once more if not a single one answered in time."""
    asked = await _ask_all(search, channels, stages, budget_s)
    late = _late(search, channels, asked)
    again = iter(await _ask_all(search, late, stages, search.deadline.remaining_s()) if late else ())
    return [next(again) if late and each.late else each for each in asked]


def _retrieved(asked: Sequence["_Asked"]) -> Retrieved:
    gaps = tuple(gap for each in asked for gap in each.gaps)
    results = tuple(each.result for each in asked if each.result)
    if asked and not results:
        raise nothing_to_return(gaps, [error for each in asked for error in each.errors])
    timings = tuple(timing for each in asked for timing in each.timings)
    return Retrieved(results=results, gaps=gaps, timings=timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What became of a channel: no result where none of its bundles answered."""

    result: ChannelResult | None = None
    gaps: tuple[Gap, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    errors: tuple[HeadraceError, ...] = ()

    @property
    def late(self) -> bool:
        return self.result is None and any(gap.reason is GapReason.DEADLINE for gap in self.gaps)


async def _ask_all(
    search: Search, channels: Sequence[ReleaseChannel], stages: Stages, budget_s: float
) -> list[_Asked]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(search, channel, stages, budget_s)) for channel in channels]
    return [task.result() for task in tasks]


def _late(
    search: Search, channels: Sequence[ReleaseChannel], asked: Sequence[_Asked]
) -> list[ReleaseChannel]:
    """Return the channels that did not answer in time, if not a single one did and there is time to ask."""
    if any(each.result for each in asked) or search.deadline.remaining_s() < RESERVE_S + LEAST_CALL_S:
        return []
    return [channel for channel, each in zip(channels, asked, strict=True) if each.late]


async def _ask(search: Search, channel: ReleaseChannel, stages: Stages, budget_s: float) -> _Asked:
    allowance = _allowance(search, channel, budget_s)
    if allowance is None:
        error = DeadlineExceeded("no time was left to ask")
        gap = _gap(channel, channel.model, GapReason.SKIPPED, error)
        return _Asked(gaps=(gap,), errors=(error,))
    call, bundles = _call(search, channel), channel.bundles()
    outcomes = await scatter(call, bundles, stages, allowance.timeout_s, search.deadline)
    replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    return _Asked(
        result=_result(channel, gathered(call, bundles, replies)) if replies else None,
        gaps=tuple(_gap(channel, r.bundle, reason_of(r.error), r.error) for r in refusals),
        timings=tuple(_timing(channel, reply) for reply in replies),
        errors=tuple(refusal.error for refusal in refusals),
    )


def _allowance(search: Search, channel: ReleaseChannel, budget_s: float) -> Allowance | None:
    return allow(
        remaining_s=search.deadline.remaining_s(),
        budget_s=budget_s,
        wanted=channel.k,
        least=channel.k,
    )


def _call(search: Search, channel: ReleaseChannel) -> Retrieval:
    release = search.release
    # Scorers name the page's attributes again; without them any of the candidates may reach the page.
    described = search.depth if release.pre_ranker or release.ranker else channel.k
    return Retrieval(
        model=channel.model,
        context=search.context,
        k=channel.k,
        filter=search.filter,
        attributes=release.texts(),
        attribute_count=described,
    )


def _result(channel: ReleaseChannel, candidates: Candidates) -> ChannelResult:
    return ChannelResult(name=channel.name, weight=channel.weight, quota=channel.quota, candidates=candidates)


def _gap(channel: ReleaseChannel, bundle: ModelVersion, reason: GapReason, error: HeadraceError) -> Gap:
    return Gap(
        stage=Stage.RETRIEVAL,
        channel=channel.name,
        model=bundle,
        reason=reason,
        detail=str(error),
    )


def _timing(channel: ReleaseChannel, reply: Reply) -> StageTiming:
    return StageTiming(
        stage=Stage.RETRIEVAL,
        channel=channel.name,
        model=reply.answer.model,
        shard_id=reply.answer.shard_id,
        total_s=reply.total_s,
        compute_s=reply.answer.compute_s,
        queue_s=reply.answer.queue_s,
        candidates=len(reply.answer.candidates),
    )
