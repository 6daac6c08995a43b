"""Consecutive stages over the bundles of one shard: channels → merge → pre-ranking → ranking, in one go.

The same arithmetic as that of a router which asks stage by stage; only what the last stage keeps comes back.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from shards.candidates import EMPTY, Candidates
from shards.errors import DeadlineExceeded, FieldViolation, InvalidInput
from shards.merging import PREFIXES, ChannelResult, attributes_of, merge, with_columns
from shards.release import ModelVersion, Stage
from shards.search_context import Filter, SearchContext
from shards.stages import Retriever, Scorer, Servable


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeStep:
    """One model's part: a channel retrieves `keep`; a scorer takes in `intake` and keeps `keep` (0: all)."""

    stage: Stage
    model: ModelVersion
    keep: int
    channel: str = ""
    weight: float = 1.0
    quota: int = 0
    intake: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeCall:
    """Channels, if any, and then scorers; without channels `candidates` are what is scored.

    `merged` candidates at most leave the merge, and without a scorer the best `returned` of them come back,
    or all where it is 0: others will score them elsewhere. The first `attribute_count` that come back have
    attributes.
    """

    context: SearchContext
    steps: tuple[CascadeStep, ...]
    candidates: Candidates = EMPTY
    merged: int = 0
    returned: int = 0
    filter: Filter = ()
    task_exponents: Mapping[str, float] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    attribute_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """Which model answered, how long it computed and how many candidates it returned."""

    model: ModelVersion
    compute_s: float
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeResult:
    """The candidates after the last step that was done, best first, with the columns of all steps."""

    candidates: Candidates
    done: tuple[StepDone, ...]


OnStep = Callable[[CascadeStep, Candidates | None, Candidates], None]
"""Told a step, the candidates that a scorer was asked about, and the answer."""


def run(
    call: CascadeCall,
    servables: Sequence[Servable],
    *,
    until_s: float,
    wanted: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
    on_step: OnStep | None = None,
) -> CascadeResult:
    """Run the steps, each on its servable, and leave out the last scorers when it is `until_s` of the clock.

    `on_step` is told what each step answered. Between two steps it stops where the answer is no longer
    `wanted`. Raises DeadlineExceeded then, and where not even the first scorer has its time, InvalidInput
    where a scorer knows none of the candidates, ValueError where it returns others, and whatever a servable
    raises.
    """
    running = _Running(call=call, wanted=wanted, clock=clock, on_step=on_step)
    steps = list(zip(call.steps, servables, strict=True))
    # Whoever holds the models knows their stages; to ask a protocol takes longer than some channels do.
    found = [
        running.retrieve(step, cast(Retriever, servable))
        for step, servable in steps
        if step.stage is Stage.RETRIEVAL
    ]
    candidates = merge(found, limit=call.merged) if found else call.candidates
    if len(found) == len(steps):
        candidates = _described(candidates, call, [each.candidates for each in found])
    for step, servable in steps[len(found) :] if candidates else ():
        if clock() >= until_s:
            if len(running.done) == len(found):
                raise DeadlineExceeded("no time was left to score")
            break
        candidates = running.score(step, cast(Scorer, servable), candidates)
    return CascadeResult(candidates=candidates, done=tuple(running.done))


def _described(candidates: Candidates, call: CascadeCall, sources: Sequence[Candidates]) -> Candidates:
    """Return the candidates that come back, the first with the attributes that the channels know of them."""
    candidates = candidates.first(call.returned or len(candidates))
    texts = attributes_of(candidates.item_ids[: call.attribute_count], sources)
    names = dict.fromkeys(name for source in sources for name in source.attributes)
    columns = {name: tuple(known.get(name, "") for known in texts.values()) for name in names}
    return replace(candidates, attributes=columns)


@dataclass(slots=True, kw_only=True)
class _Running:
    """The steps of one call as they are done."""

    call: CascadeCall
    wanted: Callable[[], bool]
    clock: Callable[[], float]
    on_step: OnStep | None
    done: list[StepDone] = field(default_factory=list)

    def retrieve(self, step: CascadeStep, retriever: Retriever) -> ChannelResult:
        started_s = self._begin()
        call = self.call
        found = retriever.retrieve(
            call.context, step.keep, call.filter, call.attributes, self._described(step)
        )
        self._note(step, started_s, found)
        if self.on_step is not None:
            self.on_step(step, None, found)
        return ChannelResult(name=step.channel, weight=step.weight, quota=step.quota, candidates=found)

    def _described(self, step: CascadeStep) -> int:
        """Return how many of a channel's candidates need their attributes: scorers name them again."""
        if self.call.steps[-1].stage is not Stage.RETRIEVAL:
            return 0
        # Without a scorer any of them may be the first of all.
        return step.keep if self.call.returned else self.call.attribute_count

    def score(self, step: CascadeStep, scorer: Scorer, candidates: Candidates) -> Candidates:
        call, started_s, asked = self.call, self._begin(), candidates.first(step.intake)
        exponents = call.task_exponents if step.stage is Stage.RANKING else {}
        scored = scorer.score(
            call.context, asked, step.keep, exponents, call.attributes, call.attribute_count
        )
        joined = with_columns(asked, PREFIXES[step.stage], scored)
        if not joined:
            # No fault of this shard, which another one would not have.
            raise InvalidInput(
                FieldViolation("steps", f"{step.model} knows none of the {len(asked)} candidates")
            )
        self._note(step, started_s, joined)
        if self.on_step is not None:
            self.on_step(step, asked, scored)
        return joined

    def _begin(self) -> float:
        """Return the moment at which a step begins, unless its caller has left."""
        if not self.wanted():
            raise DeadlineExceeded("nobody waits for the answer any more")
        return self.clock()

    def _note(self, step: CascadeStep, started_s: float, candidates: Candidates) -> None:
        took_s = self.clock() - started_s
        self.done.append(StepDone(model=step.model, compute_s=took_s, candidates=len(candidates)))
