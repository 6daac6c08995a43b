"""What was seen of one replica's answers lately: sums that slide with time, and the figures they give."""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from shards.live_quality import Drift, LiveQuality, QualitySettings, Recall
from shards.reference import Reference, Shares
from shards.watched_values import Watched

_SLICES = 6
"""A window slides by this part of it."""

MOST_TOLD = 8
"""Columns that are told, those furthest from their reference first."""


@dataclass(slots=True)
class _Slice:
    """The sums of a part of the window."""

    began_s: float
    recall: float = 0.0
    recalls: int = 0
    shares: dict[str, Shares] = field(default_factory=dict)
    searches: dict[str, int] = field(default_factory=dict)


class LiveWindow:
    """Of one replica; `now_s` is of a clock that never goes back."""

    def __init__(self, settings: QualitySettings, reference: Reference | None) -> None:
        self._settings = settings
        self._reference = reference
        self._slices: deque[_Slice] = deque()
        self._told: LiveQuality | None = None
        """What the slices tell, until they change: it is asked for more often than they do."""

    def note(self, values: Watched, recall: float | None, now_s: float) -> None:
        """Add one search."""
        part = self._current(now_s)
        self._told = None
        if recall is not None:
            part.recall += recall
            part.recalls += 1
        known = self._reference.columns if self._reference else {}
        for name in values.keys() & known.keys():
            share_E = known[name].binned(values[name])
            if share_E.any():
                part.shares[name] = part.shares.get(name, 0.0) + share_E
                part.searches[name] = part.searches.get(name, 0) + 1

    def quality(self, golden: Recall | None, now_s: float) -> LiveQuality:
        """Return what the window tells now."""
        self._forget(now_s)
        if self._told is None:
            self._told = self._quality()
        return replace(self._told, golden=golden)

    def _quality(self) -> LiveQuality:
        settings = self._settings
        searches = sum(part.recalls for part in self._slices)
        live = Recall.of(sum(part.recall for part in self._slices), searches) if searches else None
        alarm = live is not None and searches >= settings.least_searches and live.high < settings.min_recall
        drifts = sorted(self._drifts(), key=lambda drift: (-drift.drifted, -drift.psi, drift.column))
        return LiveQuality(live=live, recall_alarm=alarm, drifts=tuple(drifts[:MOST_TOLD]))

    def _drifts(self) -> list[Drift]:
        """Return the columns that searches enough tell of."""
        if self._reference is None:
            return []
        found = []
        for name in self._reference.columns:
            searches = sum(part.searches.get(name, 0) for part in self._slices)
            if searches >= self._settings.least_searches:
                sums = [part.shares[name] for part in self._slices if name in part.shares]
                sum_E = np.sum(sums, axis=0)
                found.append(self._reference.drift(name, sum_E, searches, self._settings.psi))
        return found

    def _current(self, now_s: float) -> _Slice:
        self._forget(now_s)
        if not self._slices or now_s - self._slices[-1].began_s >= self._settings.window_s / _SLICES:
            self._slices.append(_Slice(now_s))
        return self._slices[-1]

    def _forget(self, now_s: float) -> None:
        while self._slices and now_s - self._slices[0].began_s > self._settings.window_s:
            self._slices.popleft()
            self._told = None
