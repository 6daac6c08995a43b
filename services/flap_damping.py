"""Flap damping: who is in use, of members that come and go; pure.

Source: RFC 2439, "BGP Route Flap Damping": each loss costs a penalty that decays by half-lives; above one
threshold a member is suppressed, below a lower one it is used again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DampingRules:
    """A member that vanishes is kept for `linger_ms`; one that keeps vanishing is kept out.

    Each loss costs 1. At `suppress_at` a member is out until less than `reuse_at` is left of it.
    """

    linger_ms: int = 5_000
    half_life_ms: int = 15_000
    suppress_at: float = 2.5
    reuse_at: float = 1.0

    def __post_init__(self) -> None:
        if self.linger_ms < 0 or self.half_life_ms <= 0:
            raise ValueError("linger_ms must not be negative, half_life_ms above 0")
        if not 0 < self.reuse_at < self.suppress_at:
            raise ValueError("0 < reuse_at < suppress_at does not hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberHistory:
    """One member: its latest address, whether it is there, since when, and what its losses cost."""

    address: str
    present: bool
    since_ms: int
    penalty: float = 0.0
    """As of `penalty_ms`."""
    penalty_ms: int = 0
    suppressed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Who is in use, why, and when that changes by time alone (None: never)."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    """Member id to HOST:PORT, of those in use."""
    histories: Mapping[str, MemberHistory] = field(default_factory=dict)
    next_change_ms: int | None = None


def damped(
    previous: Membership, seen: Mapping[str, str], now_ms: int, rules: DampingRules = DampingRules()
) -> Membership:
    """Return the membership after `seen` (member id to HOST:PORT) was all there is at `now_ms`.

    A member never seen before is used at once, and one with a new address at its new address: a process
    that was restarted elsewhere does not flap. Time must not go back between calls.
    """
    histories = {}
    for member in sorted(previous.histories.keys() | seen.keys()):
        history = _moved_on(previous.histories.get(member), seen.get(member), now_ms, rules)
        if not _forgettable(history, now_ms, rules):
            histories[member] = history
    changes = [change for h in histories.values() if (change := _next_change_ms(h, now_ms, rules))]
    return Membership(
        addresses={m: h.address for m, h in histories.items() if _in_use(h, now_ms, rules)},
        histories=histories,
        next_change_ms=min(changes, default=None),
    )


def _moved_on(
    history: MemberHistory | None, address: str | None, now_ms: int, rules: DampingRules
) -> MemberHistory:
    if history is None:
        assert address is not None, "a member is remembered or seen"
        return MemberHistory(address=address, present=True, since_ms=now_ms, penalty_ms=now_ms)
    present = address is not None
    lost = history.present and not present
    penalty = _penalty(history, now_ms, rules) + lost
    threshold = rules.reuse_at if history.suppressed else rules.suppress_at
    return MemberHistory(
        address=address or history.address,
        present=present,
        since_ms=history.since_ms if present == history.present else now_ms,
        # Only a loss rewrites the penalty, so that looking often does not round it away.
        penalty=penalty if lost else history.penalty,
        penalty_ms=now_ms if lost else history.penalty_ms,
        suppressed=penalty >= threshold,
    )


def _penalty(history: MemberHistory, now_ms: int, rules: DampingRules) -> float:
    return history.penalty * math.exp2((history.penalty_ms - now_ms) / rules.half_life_ms)


def _in_use(history: MemberHistory, now_ms: int, rules: DampingRules) -> bool:
    lingers = now_ms - history.since_ms < rules.linger_ms
    return not history.suppressed and (history.present or lingers)


def _forgettable(history: MemberHistory, now_ms: int, rules: DampingRules) -> bool:
    gone = not history.present and now_ms - history.since_ms >= rules.linger_ms
    return gone and not history.suppressed and _penalty(history, now_ms, rules) < rules.reuse_at / 2


def _next_change_ms(history: MemberHistory, now_ms: int, rules: DampingRules) -> int | None:
    """Return when the member comes back into use or is no longer kept, if nothing else happens."""
    if history.suppressed:
        half_lives = math.log2(history.penalty / rules.reuse_at)
        # One more, because below the threshold is not at it.
        return max(now_ms, history.penalty_ms + math.ceil(half_lives * rules.half_life_ms)) + 1
    if not history.present and now_ms - history.since_ms < rules.linger_ms:
        return history.since_ms + rules.linger_ms
    return None
