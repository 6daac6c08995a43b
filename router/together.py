"""A whole cascade in one call, where one shard holds every bundle that it needs.

The candidates never travel, and one call takes the place of one for each channel and scorer. Whatever goes
wrong with it, the caller goes on stage by stage, which makes the best of it and names what is missing.
"""

import logging
from collections.abc import Sequence

from router.answer import StageTiming
from router.budget import LEAST_CALL_S, RESERVE_S
from router.coverage import Gap, GapReason
from router.scoring import intake, kept
from router.search import Search, Stages
from services.codec import CascadeAnswer
from shards.cascade import CascadeCall, CascadeStep
from shards.errors import HeadraceError
from shards.release import ReleaseChannel, ReleaseScorer, Stage

log = logging.getLogger(__name__)


async def ask_together(call: CascadeCall, search: Search, stages: Stages) -> CascadeAnswer | None:
    """Return the answer of one shard to all steps; None where none holds them all, or it fails."""
    timeout_s = min(_budget_s(search), search.deadline.remaining_s() - RESERVE_S)
    if timeout_s < LEAST_CALL_S:
        return None
    try:
        return await stages.together(call, timeout_s)
    except HeadraceError as error:
        log.info("%s goes on stage by stage: %s", search.release.name, error)
        return None


def may_go_together(search: Search, channels: Sequence[ReleaseChannel]) -> bool:
    """Return whether one shard may answer: not what only the router can put together or explain."""
    release = search.release
    models = len(channels) + bool(release.pre_ranker) + bool(release.ranker)
    whole = all(channel.partitions <= 1 for channel in channels)
    return bool(channels) and models > 1 and whole and not (release.on_demand or search.request.explain)


def call_of(search: Search, channels: Sequence[ReleaseChannel], merged: int) -> CascadeCall:
    """Return the call for the channels that the gate lets through and the scorers of the release."""
    release = search.release
    scorers = {Stage.PRE_RANKING: release.pre_ranker, Stage.RANKING: release.ranker}
    steps = [_channel(channel) for channel in channels]
    steps += [_scorer(search, stage, scorer) for stage, scorer in scorers.items() if scorer]
    return CascadeCall(
        context=search.context,
        steps=tuple(steps),
        merged=merged,
        filter=search.request.filter,
        task_exponents=release.task_exponents if release.ranker else {},
        attributes=release.attributes,
        attribute_count=search.request.page_size,
    )


def _channel(channel: ReleaseChannel) -> CascadeStep:
    return CascadeStep(
        stage=Stage.RETRIEVAL,
        channel=channel.name,
        model=channel.model,
        keep=channel.k,
        weight=channel.weight,
        quota=channel.quota,
    )


def _scorer(search: Search, stage: Stage, scorer: ReleaseScorer) -> CascadeStep:
    return CascadeStep(
        stage=stage, model=scorer.model, keep=kept(search, stage), intake=intake(search, scorer)
    )


def _budget_s(search: Search) -> float:
    scorers = (search.release.pre_ranker, search.release.ranker)
    budgets_ms = [scorer.budget_ms for scorer in scorers if scorer]
    return (search.release.retrieval_budget_ms + sum(budgets_ms)) / 1e3


def timings_of(call: CascadeCall, answer: CascadeAnswer) -> tuple[StageTiming, ...]:
    """Return what each step took on the shard; the first one also waited there for all."""
    queues_s = (answer.queue_s, *[0.0] * len(answer.done))
    return tuple(
        StageTiming(
            stage=step.stage,
            channel=step.channel,
            model=done.model,
            shard_id=answer.shard_id,
            total_s=queue_s + done.compute_s,
            compute_s=done.compute_s,
            candidates=done.candidates,
        )
        for step, done, queue_s in zip(call.steps, answer.done, queues_s, strict=False)
    )


def gaps_of(call: CascadeCall, answer: CascadeAnswer) -> tuple[Gap, ...]:
    """Return the scorers that were left out for want of time; without candidates there was nothing to do."""
    left_out = call.steps[len(answer.done) :] if len(answer.candidates) else ()
    return tuple(
        Gap(
            stage=step.stage,
            model=step.model,
            reason=GapReason.SKIPPED,
            detail="no time was left to ask",
        )
        for step in left_out
    )
