"""How long a search waits for a model that is held on demand: its own time, not only its stage's.

A stage's budget is for models that are in memory, where what is late hardly comes at all. A shard that says
that it loads will answer, and to leave the stage out would spoil the first answers of each release.
"""

from collections.abc import Awaitable, Callable

from router.budget import LEAST_CALL_S, RESERVE_S, Deadline
from services.codec import StageAnswer
from shards.errors import NoRoomYet, StillLoading

Ask = Callable[[float], Awaitable[StageAnswer]]
"""Asks one model within a time in seconds."""


async def ask_patiently(ask: Ask, timeout_s: float, deadline: Deadline) -> StageAnswer:
    """Ask within the stage's time, and once more within the search's if the shard says that it loads.

    Raises what the last call raises.
    """
    try:
        return await ask(timeout_s)
    except (StillLoading, NoRoomYet) as error:
        remaining_s = deadline.remaining_s() - RESERVE_S
        after_s = error.retry_after_s if isinstance(error, NoRoomYet) else 0.0
        if remaining_s < max(LEAST_CALL_S, after_s):
            raise
    return await ask(remaining_s)
