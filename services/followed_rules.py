"""The rules of access as their file says now, so that tokens are replaced while processes run."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from services.access import AccessRules
from services.file_stamp import stamp_of
from shards.errors import InvalidInput

log = logging.getLogger(__name__)

RulesSource = Callable[[], AccessRules]
"""Gives the rules that hold now."""

_LOOK_EVERY_S = 1.0


class FollowedRules:
    """Reads the rules again when a file that they come from has changed; asked before each call.

    New ones that cannot be used are logged, and the old ones stay. Raises what `read` raises for the first.
    """

    def __init__(
        self,
        read: RulesSource,
        paths: tuple[Path, ...],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._paths = paths
        self._clock = clock
        self._stamp = self._now()
        self._rules = read()
        self._look_s = clock() + _LOOK_EVERY_S

    def __call__(self) -> AccessRules:
        """Return the rules, at most a second old."""
        if self._clock() >= self._look_s:
            self._look_s = self._clock() + _LOOK_EVERY_S
            self._look()
        return self._rules

    def _look(self) -> None:
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._rules = self._read()
        except InvalidInput as error:
            log.error("the rules of access from before stay in force: %s", error)
        else:
            log.info("new rules of access: %d callers", len(self._rules.callers))

    def _now(self) -> tuple[tuple[int, int], ...]:
        return tuple(stamp_of(path) for path in self._paths)
