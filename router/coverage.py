"""What an answer could not include, and why. Anything that the cascade leaves out is a gap."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from shards.errors import (
    DeadlineExceeded,
    HeadraceError,
    InvalidInput,
    NotFound,
    NotOwner,
    Overloaded,
    Unavailable,
)
from shards.release import ModelVersion, Stage


class GapReason(enum.Enum):
    """Why something is missing; the contract's words."""

    NO_REPLICA = "no_replica"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    FAILED = "failed"
    SKIPPED = "skipped"
    SHRUNK = "shrunk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that the answer could not include; `detail` is one sentence for the reader of a log.

    Without a stage and model it is the user's features and history, which every stage then lacks.
    """

    stage: Stage | None = None
    channel: str = ""
    model: ModelVersion | None = None
    reason: GapReason
    detail: str = ""


def reason_of(error: HeadraceError) -> GapReason:
    """Return the reason that a failed stage call is reported with."""
    match error:
        case NotFound() | NotOwner():
            return GapReason.NO_REPLICA
        case Unavailable() | Overloaded():
            return GapReason.UNAVAILABLE
        case DeadlineExceeded():
            return GapReason.DEADLINE
        case _:
            return GapReason.FAILED


def nothing_to_return(gaps: Sequence[Gap], errors: Sequence[HeadraceError]) -> HeadraceError:
    """Return the error of a search all of whose channels failed.

    A caller's mistake that a shard found (a filter on an unknown attribute, say) stays the caller's mistake.
    """
    for error in errors:
        if isinstance(error, InvalidInput):
            return error
    waits_s = [error.retry_after_s for error in errors if isinstance(error, Overloaded)]
    told = "; ".join(f"{gap.channel}: {gap.detail}" for gap in gaps)
    if all(gap.reason in (GapReason.DEADLINE, GapReason.SKIPPED) for gap in gaps):
        return DeadlineExceeded(f"no channel answered in time ({told})")
    if waits_s and len(waits_s) == len(errors):
        return Overloaded(f"no channel has room to answer ({told})", retry_after_s=min(waits_s))
    return Unavailable(f"no channel could answer ({told})")
