"""Consecutive stages in one call, where the same shards hold every bundle that those need.

Within a call the candidates never travel, and it takes the place of one for each channel and scorer. Whatever
goes wrong with it, the caller goes on stage by stage, which makes the best of it and names what is missing.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from router.answer import StageTiming
from router.budget import LEAST_CALL_S, RESERVE_S
from router.coverage import Gap, GapReason
from router.scoring import intake, kept
from router.search import Search, Stages
from services.codec import CascadeAnswer
from shards.candidates import EMPTY, Candidates
from shards.cascade import CascadeCall, CascadeStep
from shards.errors import HeadraceError, NoRoomYet, Overloaded
from shards.release import ModelVersion, ReleaseChannel, ReleaseScorer, Stage

log = logging.getLogger(__name__)

NO_TIME = "no time was left to ask"
NO_ROOM = "no shard had room to score"

HeldTogether = Callable[[tuple[ModelVersion, ...]], bool]
"""Whether one shard can be asked for all of the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Consecutive stages: all channels, scorers, or both."""

    channels: tuple[ReleaseChannel, ...] = ()
    scorers: tuple[tuple[Stage, ReleaseScorer], ...] = ()
    together: bool = False
    """Whether one shard is asked for several of them at once."""
    last: bool = False
    """Whether the page is made of what it leaves."""

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        """Return the models in the order of the cascade."""
        return (*(channel.model for channel in self.channels), *(scorer.model for _, scorer in self.scorers))


def units_of(search: Search, channels: Sequence[ReleaseChannel], held: HeldTogether) -> tuple[Unit, ...]:
    """Divide a search into units: the channels first, and every scorer with those before it if it can be.

    What only the router can put together, explain or wait for goes stage by stage.
    """

    def joins(*models: ModelVersion) -> bool:
        return not (search.release.on_demand or search.request.explain) and held(models)

    whole = all(channel.partitions <= 1 for channel in channels)
    models = [channel.model for channel in channels]
    together = whole and bool(models) and joins(*models)
    units = [Unit(channels=tuple(channels), together=together and len(models) > 1)]
    for step in search.release.scorers():
        before = units[-1]
        open_end = together if before.channels else bool(before.scorers)
        if open_end and joins(*before.models, step[1].model):
            units[-1] = replace(before, scorers=(*before.scorers, step), together=True)
        else:
            units.append(Unit(scorers=(step,)))
    units[-1] = replace(units[-1], last=True)
    return tuple(units)


async def ask_together(call: CascadeCall, unit: Unit, search: Search, stages: Stages) -> CascadeAnswer | None:
    """Return the answer of one shard to all steps, the last scorers maybe left out; None where it fails.

    Raises Overloaded where those who could answer have no room: to ask for each stage would ask more of them.
    """
    timeout_s = min(_budget_s(search, unit), search.deadline.remaining_s() - RESERVE_S)
    if timeout_s < LEAST_CALL_S:
        return None
    try:
        return await stages.run(call, timeout_s)
    except HeadraceError as error:
        if isinstance(error, Overloaded) and not isinstance(error, NoRoomYet):
            raise
        log.info("%s goes on stage by stage: %s", search.release.name, error)
        return None


def call_of(search: Search, unit: Unit, candidates: Candidates, merged: int) -> CascadeCall:
    """Return the call for a unit, with what the units before it left."""
    release = search.release
    steps = [_channel(channel) for channel in unit.channels]
    steps += [_scorer(search, stage, scorer) for stage, scorer in unit.scorers]
    ranks = any(step.stage is Stage.RANKING for step in steps)
    return CascadeCall(
        context=search.context,
        steps=tuple(steps),
        candidates=EMPTY if unit.channels else candidates.first(steps[0].intake),
        merged=merged,
        returned=search.depth if unit.last else 0,
        filter=search.filter,
        task_exponents=release.task_exponents if ranks else {},
        attributes=release.texts(),
        attribute_count=search.depth,
    )


def without_scorers(call: CascadeCall) -> CascadeCall:
    """Return the call for the channels alone: the least that makes an answer."""
    channels = tuple(step for step in call.steps if step.stage is Stage.RETRIEVAL)
    return replace(call, steps=channels, task_exponents={})


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


def _budget_s(search: Search, unit: Unit) -> float:
    budgets_ms = [scorer.budget_ms for _, scorer in unit.scorers]
    if unit.channels:
        budgets_ms.append(search.release.retrieval_budget_ms)
    return sum(budgets_ms) / 1e3


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
            queue_s=queue_s,
            candidates=done.candidates,
        )
        for step, done, queue_s in zip(call.steps, answer.done, queues_s, strict=False)
    )


def gaps_of(call: CascadeCall, answer: CascadeAnswer) -> tuple[Gap, ...]:
    """Return the scorers that were left out for want of time; without candidates there was nothing to do."""
    return skipped(call.steps[len(answer.done) :], NO_TIME) if len(answer.candidates) else ()


def skipped(steps: Sequence[CascadeStep], because: str) -> tuple[Gap, ...]:
    """Return the gaps that scorers leave which were not asked."""
    return tuple(
        Gap(stage=step.stage, model=step.model, reason=GapReason.SKIPPED, detail=because) for step in steps
    )
