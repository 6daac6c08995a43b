"""Looks again at a share of what a shard answers, on a thread of its own that gives way to requests.

A call leaves a sample in a queue, which costs it microseconds, and is answered. The thread takes samples when
no request is computed, asks the index once more, exactly, and notes scores and features. What finds no room
in the queue, or no idle moment in time, is dropped.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import faiss

from services.priority import step_back
from shards.candidates import Candidates
from shards.live_quality import QualitySettings
from shards.live_window import LiveWindow
from shards.measures import Counts
from shards.recall import Approximate, recall_of
from shards.release import ModelVersion, Stage
from shards.replica import Replica
from shards.residency import Residency
from shards.search_context import Filter, SearchContext
from shards.stages import Servable
from shards.watched_values import watched_values

log = logging.getLogger(__name__)

_NICENESS = 19
_IDLE_LOOK_S = 0.005
_STOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A stage call that was answered; a scorer is `asked` about candidates."""

    model: ModelVersion
    stage: Stage
    context: SearchContext
    answer: Candidates
    asked: Candidates | None = None
    k: int = 0
    allowed: Filter = ()


class LiveWatch:
    """Watches from `with` on; `busy` says whether requests are being computed."""

    def __init__(
        self,
        settings: QualitySettings,
        residency: Residency,
        busy: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.samples = Counts("outcome")
        self._settings = settings
        self._residency = residency
        self._busy = busy
        self._clock = clock
        self._rng = rng or random.Random()
        self._queue: queue.Queue[Sample] = queue.Queue(settings.queue)
        self._lock = threading.Lock()
        self._windows: dict[ModelVersion, LiveWindow] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._settings.share:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def wants(self) -> bool:
        """Return whether the call at hand is one of those that are watched."""
        return self._settings.share > 0 and self._rng.random() < self._settings.share

    def offer(self, sample: Sample) -> None:
        """Leave a sample, or drop it where too many wait."""
        try:
            self._queue.put_nowait(sample)
        except queue.Full:
            self.samples.add("dropped")

    def told(self, replica: Replica) -> Replica:
        """Return the replica with what is known of its answers."""
        with self._lock:
            window = self._windows.get(replica.model)
            if window is None:
                return replica
            return replace(replica, quality=window.quality(replica.quality.golden, self._clock()))

    def _run(self) -> None:
        step_back(_NICENESS)
        faiss.omp_set_num_threads(1)
        while not self._stopped.is_set():
            try:
                sample = self._queue.get(timeout=0.2)
            except queue.Empty:
                self._forget_gone()
                continue
            self.samples.add(self._looked_at(sample))

    def _looked_at(self, sample: Sample) -> str:
        """Return what became of a sample: "watched", "dropped" or "failed"."""
        if not self._found_idle():
            return "dropped"
        try:
            servable = self._residency.take(sample.model, sample.stage)
        except Exception:
            return "dropped"  # It has left the shard, or cannot serve any more.
        if servable is None:
            return "dropped"
        try:
            self._note(servable, sample)
        except Exception:
            log.warning("an answer of %s could not be watched", sample.model, exc_info=True)
            return "failed"
        finally:
            self._residency.give(sample.model, answered=False)
        return "watched"

    def _note(self, servable: Servable, sample: Sample) -> None:
        recall = None
        if isinstance(servable, Approximate):
            recall = recall_of(servable, sample.context, sample.k, sample.allowed, found=sample.answer)
        values = watched_values(servable, sample.context, sample.asked, sample.answer)
        reference = self._residency.reference(sample.model)
        with self._lock:
            window = self._windows.get(sample.model)
            if window is None:
                window = self._windows[sample.model] = LiveWindow(self._settings, reference)
            window.note(values, recall, self._clock())

    def _found_idle(self) -> bool:
        until_s = self._clock() + self._settings.patience_s
        while self._busy():
            if self._clock() >= until_s or self._stopped.wait(_IDLE_LOOK_S):
                return False
        return True

    def _forget_gone(self) -> None:
        """Let go what was seen of bundles that have left the shard."""
        held = {replica.model for replica in self._residency.replicas()}
        with self._lock:
            self._windows = {model: window for model, window in self._windows.items() if model in held}
