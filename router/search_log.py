"""Which searches the log mentions, and what it says of them: never what was searched for, unless told to."""

import logging
import random
from collections.abc import Mapping

from router.answer import Answer, StageTiming
from router.coverage import Gap, GapReason
from router.seen_search import SeenSearch
from services.process_log import extra
from services.telemetry_settings import LogSettings

log = logging.getLogger(__name__)


class SearchLog:
    """Picks the searches that are logged, no more in a second than are of use."""

    def __init__(self, settings: LogSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._second = 0
        self._logged = 0
        self._left_out = 0

    def reason(self, seen: SeenSearch) -> str:
        """Return why a search is logged: "failed", "gaps", "slow" or "sample"; empty for most."""
        settings = self._settings
        if seen.answer is None:
            return "failed"
        if seen.answer.gaps:
            return "gaps"
        if settings.slow_ms and seen.took_s * 1e3 >= settings.slow_ms:
            return "slow"
        return "sample" if settings.share and self._rng.random() < settings.share else ""

    def note(self, seen: SeenSearch, now_s: float) -> None:
        """Log the search, if it is one of those; `now_s` is of a clock that never goes back."""
        if (reason := self.reason(seen)) and self._has_room(int(now_s)):
            left_out, self._left_out = self._left_out, 0
            fields = {"reason": reason, **fields_of(seen, personal=self._settings.personal)}
            log.info("search", extra=extra(fields | {"left_out": left_out}))

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            self._second, self._logged = second, 0
        if self._logged >= self._settings.most_per_s:
            self._left_out += 1
            return False
        self._logged += 1
        return True


def fields_of(seen: SeenSearch, *, personal: bool) -> dict[str, object]:
    """Return what the log says of a search; an error may repeat what a user has typed."""
    answer, asked = seen.answer, seen.asked
    fields: dict[str, object] = {
        "request_id": seen.request_id,
        "trace_id": seen.trace_id,
        "surface": seen.surface,
        "release": seen.release.version if seen.release else "",
        "generation": seen.generation,
        "status": seen.status,
        "took_ms": _ms(seen.took_s),
        "gate": _gate(answer) if answer else None,
        "items": len(answer.items) if answer else 0,
        "timings": [_timing(timing) for timing in answer.timings] if answer else [],
        "gaps": [_gap(gap, personal=personal) for gap in answer.gaps] if answer else [],
    }
    if personal:
        fields["error"] = seen.error
        fields["query"] = asked.query if asked else ""
        fields["user_id"] = asked.user_id if asked else ""
    return fields


def _gate(answer: Answer) -> Mapping[str, object]:
    gate = answer.gate
    return {
        "open": gate.open,
        "reason": gate.reason,
        "probability": gate.probability,
        "version": gate.version,
    }


def _timing(timing: StageTiming) -> Mapping[str, object]:
    return {
        "stage": timing.stage.value,
        "channel": timing.channel,
        "model": str(timing.model),
        "shard": timing.shard_id,
        "total_ms": _ms(timing.total_s),
        "queue_ms": _ms(timing.queue_s),
        "compute_ms": _ms(timing.compute_s),
        "candidates": timing.candidates,
    }


def _gap(gap: Gap, *, personal: bool) -> Mapping[str, object]:
    return {
        "stage": gap.stage.value if gap.stage else "user",
        "channel": gap.channel,
        "model": str(gap.model) if gap.model else "",
        "reason": gap.reason.value,
        "detail": gap.detail if personal or gap.reason is not GapReason.FAILED else "",
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
