"""One retrieval of a catalogue that several bundles hold between them: all asked at once, one answer made.

With a reply of each partition the answer is that of the undivided catalogue; with fewer, what those hold.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from router.budget import Deadline
from router.patience import ask_patiently
from router.search import Stages
from services.codec import Retrieval, StageAnswer
from shards.candidates import Candidates
from shards.errors import HeadraceError
from shards.gathering import gather
from shards.release import ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one bundle answered, and how long that took as seen from here."""

    bundle: ModelVersion
    answer: StageAnswer
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one bundle did not answer."""

    bundle: ModelVersion
    error: HeadraceError


Outcome = Reply | Refusal


async def scatter(
    call: Retrieval,
    bundles: Sequence[ModelVersion],
    stages: Stages,
    timeout_s: float,
    deadline: Deadline,
) -> tuple[Outcome, ...]:
    """Ask every bundle the same within the same time; each fails alone. In the order of the bundles."""
    if len(bundles) == 1:  # Most channels: a task would cost more than it gives.
        return (await _ask(call, bundles[0], stages, timeout_s, deadline),)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(call, bundle, stages, timeout_s, deadline)) for bundle in bundles]
    return tuple(task.result() for task in tasks)


async def _ask(
    call: Retrieval, bundle: ModelVersion, stages: Stages, timeout_s: float, deadline: Deadline
) -> Outcome:
    started_s = deadline.clock()
    call = replace(call, model=bundle)
    try:
        answer = await ask_patiently(lambda within_s: stages.retrieve(call, within_s), timeout_s, deadline)
    except HeadraceError as error:
        return Refusal(bundle=bundle, error=error)
    return Reply(bundle=bundle, answer=answer, total_s=deadline.clock() - started_s)


def gathered(call: Retrieval, bundles: Sequence[ModelVersion], replies: Sequence[Reply]) -> Candidates:
    """Return the candidates of the bundles that replied; an undivided catalogue's are as they came."""
    if len(bundles) == 1:
        return replies[0].answer.candidates
    parts = [reply.answer.candidates for reply in replies]
    return gather(parts, k=call.k, attribute_count=call.attribute_count)
