"""What Prometheus may know of how good a shard's answers are: docs/live-quality.md."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.instruments import Gauge, Instrument, counter
from services.shard_servicer import Shard
from shards.live_quality import LiveQuality
from shards.measures import Labels

Series = Iterable[tuple[Labels, float]]


def quality_instruments(shard: Shard) -> Sequence[Instrument]:
    """Return the instruments; they are read when somebody asks."""
    seen = _Seen(shard)
    return (
        seen.recall("headrace_shard_recall", "Share of an exact search's items that were found.", "mean"),
        seen.recall("headrace_shard_recall_low", "Lower end of its 95 % interval.", "low"),
        seen.recall("headrace_shard_recall_high", "Upper end of its 95 % interval.", "high"),
        seen.recall("headrace_shard_recall_searches", "Searches that it comes from.", "searches"),
        Gauge(
            "headrace_shard_recall_alarm",
            "1 while the live recall is surely below what is asked for.",
            ("model",),
            seen.recall_alarms,
        ),
        seen.drift("headrace_shard_drift_psi", "Population stability index beside training.", "psi"),
        seen.drift("headrace_shard_drift_ks", "Kolmogorov-Smirnov statistic beside training.", "ks"),
        seen.drift("headrace_shard_drift_searches", "Searches that they come from.", "searches"),
        seen.drift("headrace_shard_drift_alarm", "1 while a score or feature has drifted.", "drifted"),
        counter(
            "headrace_shard_watched_total",
            "Answers that were to be looked at again, by outcome: watched, dropped, failed.",
            shard.runner.watch.samples,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a shard's replicas."""

    shard: Shard

    def qualities(self) -> Iterable[tuple[str, LiveQuality]]:
        told = self.shard.runner.watch.told
        return [(str(r.model), told(r).quality) for r in self.shard.holdings.replicas()]

    def recall(self, name: str, meaning: str, figure: str) -> Gauge:
        return Gauge(name, meaning, ("model", "source"), _reading(self._recalls, figure))

    def drift(self, name: str, meaning: str, figure: str) -> Gauge:
        return Gauge(name, meaning, ("model", "column"), _reading(self._drifts, figure))

    def recall_alarms(self) -> Series:
        return [((model,), float(found.recall_alarm)) for model, found in self.qualities() if found.live]

    def _recalls(self, figure: str) -> Series:
        for model, quality in self.qualities():
            for source, recall in (("golden", quality.golden), ("live", quality.live)):
                if recall is not None:
                    yield (model, source), float(getattr(recall, figure))

    def _drifts(self, figure: str) -> Series:
        for model, quality in self.qualities():
            for drift in quality.drifts:
                yield (model, drift.column), float(getattr(drift, figure))


def _reading(read: Callable[[str], Series], figure: str) -> Callable[[], Series]:
    return lambda: list(read(figure))
