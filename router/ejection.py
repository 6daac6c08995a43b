"""When a replica that answers others with errors is left out for a while. Pure.

Outlier detection as Envoy has it: many failures in a row, or a large share of them lately, eject a replica;
each time for longer. What a caller did wrong, and a replica that has no room, count as neither.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionLimits:
    """What ejects a replica: `consecutive` failures, or a `share` of them among `least` outcomes lately.

    Lately is `window_s`, over which outcomes fade. It is ejected for `first_s`, twice as long each time and
    `longest_s` at most. One that is back fails once only; after the time that it was ejected for and the
    window, without a failure, all is forgotten.
    """

    consecutive: int = 4
    share: float = 0.25
    least: int = 8
    window_s: float = 5.0
    first_s: float = 1.0
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        if self.consecutive < 1 or self.least < 1 or not 0 < self.share <= 1:
            raise ValueError("consecutive and least must be at least 1, share above 0 and at most 1")
        if not 0 < self.first_s <= self.longest_s or self.window_s <= 0:
            raise ValueError("0 < first_s <= longest_s and window_s > 0 do not hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is held against a replica since its first failure, at the monotonic second `at_s`.

    Counts fade; `ejections` is how often it was left out, and `until_s` the end of the last time.
    """

    at_s: float
    answers: float = 0.0
    failures: float = 0.0
    in_a_row: int = 0
    ejections: int = 0
    until_s: float = -math.inf
    ejected_for_s: float = 0.0


def failed(record: Record | None, now: float, limits: EjectionLimits) -> Record:
    """Return the record after a failure, which may eject the replica."""
    record = _faded(record or Record(at_s=now), now, limits)
    if now < record.until_s:
        return record  # An answer that was on its way, or one of too many that are ejected.
    record = replace(record, failures=record.failures + 1, in_a_row=record.in_a_row + 1)
    return _ejected(record, now, limits) if _too_many(record, limits) else record


def answered(record: Record, now: float, limits: EjectionLimits) -> Record | None:
    """Return the record after an answer, or None when nothing is held against the replica any more."""
    record = _faded(record, now, limits)
    if now < record.until_s:
        return record
    forgiven_s = record.until_s + record.ejected_for_s + limits.window_s
    if now >= forgiven_s and record.failures < _FORGOTTEN:
        return None
    return replace(record, answers=record.answers + 1, in_a_row=0)


def _too_many(record: Record, limits: EjectionLimits) -> bool:
    if record.ejections or record.in_a_row >= limits.consecutive:
        return True
    outcomes = record.answers + record.failures
    return outcomes >= limits.least and record.failures >= limits.share * outcomes


def _ejected(record: Record, now: float, limits: EjectionLimits) -> Record:
    times = min(record.ejections, 30)
    length_s = min(limits.first_s * 2**times, limits.longest_s)
    return Record(at_s=now, ejections=record.ejections + 1, until_s=now + length_s, ejected_for_s=length_s)


def _faded(record: Record, now: float, limits: EjectionLimits) -> Record:
    if now <= record.at_s:
        return record
    left = math.exp((record.at_s - now) / limits.window_s)
    return replace(record, at_s=now, answers=record.answers * left, failures=record.failures * left)


_FORGOTTEN = 0.1
"""Of a failure, what is left of it when it no longer matters."""
