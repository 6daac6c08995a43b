"""Stages that answer from memory and take as long as they are told, by a clock that tests turn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from services.codec import CascadeAnswer, Explaining, Retrieval, Scoring, StageAnswer
from shards import cascade
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep
from shards.errors import DeadlineExceeded, HeadraceError
from shards.release import ModelVersion, Stage
from shards.stages import Servable
from tests.services.asked_models import AskedRetriever, AskedScorer


def ranked(*item_ids: str, titles: int = 0, **tasks: float) -> Candidates:
    """Return candidates with falling scores, a constant column per task and titles of the first ones."""
    columns = {"score": np.linspace(1, 0.5, len(item_ids), dtype=np.float32)}
    columns |= {task: np.full(len(item_ids), value, np.float32) for task, value in tasks.items()}
    attributes = {"title": tuple(f"The {item_id}" for item_id in item_ids[:titles])} if titles else {}
    return Candidates(item_ids=item_ids, columns=columns, attributes=attributes)


@dataclass
class MemoryStages:
    """Answers every model from `answers`: candidates, or the error to raise.

    Scorers return what they were asked about, in their order, and keep as many as they were told;
    disobedient ones return all of their answer.
    """

    answers: Mapping[str, Candidates | HeadraceError]
    obedient: bool = True
    takes_s: Mapping[str, float] = field(default_factory=dict)
    now_s: float = 0.0
    calls: dict[str, Retrieval | Scoring] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    """The shard that holds each model; one that is not named has a shard of its own."""
    explained: list[Explaining] = field(default_factory=list)
    asked_together: list[tuple[CascadeCall, float]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    async def retrieve(self, call: Retrieval, timeout_s: float) -> StageAnswer:
        return self._answer(call.model, call, timeout_s)

    async def pre_rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        return self._answer(call.model, call, timeout_s)

    async def rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        return self._answer(call.model, call, timeout_s)

    async def explain(self, call: Explaining, timeout_s: float) -> StageAnswer:  # noqa: ARG002
        """Say of each candidate, best first, that one feature adds less and another takes away."""
        self.explained.append(call)
        error = self.answers.get(f"{call.model.model} explained")
        if isinstance(error, HeadraceError):
            raise error
        value = np.linspace(0.1, 0.05, call.count, dtype=np.float32)
        columns = {"score": value, "contribution": value, "loss": -2 * value, "unknown": value * np.nan}
        candidates = Candidates(item_ids=call.candidates.item_ids[: call.count], columns=columns)
        return StageAnswer(shard_id="s1", model=call.model, candidates=candidates)

    def held_together(self, models: tuple[ModelVersion, ...]) -> bool:
        return len({self._home(model) for model in models}) == 1

    async def run(self, call: CascadeCall, timeout_s: float) -> CascadeAnswer:
        """Run the steps on what answers one by one too."""
        assert self.held_together(tuple(step.model for step in call.steps))
        self.asked_together.append((call, timeout_s))
        held = [self._servable(step) for step in call.steps]
        result = cascade.run(call, held, until_s=self.now_s + timeout_s, clock=self.clock)
        return CascadeAnswer(
            shard_id=self._home(call.steps[0].model),
            queue_s=0.0,
            done=result.done,
            candidates=result.candidates,
        )

    def _home(self, model: ModelVersion) -> str:
        return self.homes.get(model.model, model.model)

    def _servable(self, step: CascadeStep) -> Servable:
        def ask(call: Retrieval | Scoring) -> Candidates:
            return self._answer(call.model, call, math.inf).candidates

        retrieves = step.stage is Stage.RETRIEVAL
        return AskedRetriever(step.model, ask) if retrieves else AskedScorer(step.model, ask)

    def _answer(self, model: ModelVersion, call: Retrieval | Scoring, timeout_s: float) -> StageAnswer:
        self.calls[model.model] = call
        taken_s = self.takes_s.get(model.model, 0.0)
        self.now_s += min(taken_s, timeout_s)
        if taken_s > timeout_s:
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s")
        answer = self.answers[model.model]
        if isinstance(answer, HeadraceError):
            raise answer
        if isinstance(call, Scoring) and self.obedient:
            answer = kept(answer, call)
        return StageAnswer(shard_id="s1", model=model, compute_s=taken_s, candidates=answer)


def kept(answer: Candidates, call: Scoring) -> Candidates:
    """Return what of the answer was asked about, and as much of it as was asked for."""
    asked = set(call.candidates.item_ids)
    rows = [row for row, item_id in enumerate(answer.item_ids) if item_id in asked]
    best = answer.take(np.array(rows[: call.keep or None], np.intp))
    titles = dict(zip(answer.item_ids, answer.attributes.get("title", ()), strict=False))
    known = tuple(titles[item_id] for item_id in best.item_ids if item_id in titles)
    return replace(best, attributes={"title": known})
