"""What Prometheus may know of a shard."""

import collections
from collections.abc import Iterable, Sequence

from services.holdings import Holdings
from services.instruments import Gauge, Instrument, counter, gauge, histogram
from services.quality_metrics import quality_instruments
from services.shard_servicer import Shard
from services.stage_observer import StageObserver
from shards.load_history import LoadHistory
from shards.measures import Labels
from shards.process_memory import anonymous_bytes


def shard_instruments(shard: Shard, observer: StageObserver, history: LoadHistory) -> Sequence[Instrument]:
    """Return the instruments of a shard; gauges are read when somebody asks."""
    return (
        *quality_instruments(shard),
        *_calls(shard, observer),
        *_memory(shard),
        *_bundles(shard.holdings, history),
    )


def _calls(shard: Shard, observer: StageObserver) -> Sequence[Instrument]:
    return (
        counter(
            "headrace_shard_calls_total",
            "Stage calls by method (retrieval, pre-ranking, ranking, cascade) and status.",
            observer.calls,
        ),
        histogram(
            "headrace_shard_queue_seconds",
            "Time that answered calls waited for a worker.",
            observer.queue_s,
        ),
        histogram(
            "headrace_shard_compute_seconds",
            "Time that answered calls computed.",
            observer.compute_s,
        ),
        histogram(
            "headrace_shard_stage_compute_seconds",
            "Time that each stage computed, by itself or within a cascade.",
            observer.stage_compute_s,
        ),
        gauge(
            "headrace_shard_in_flight",
            "Computations that wait or run.",
            lambda: shard.pool.in_flight,
        ),
        gauge("headrace_shard_draining", "1 while it refuses new work.", lambda: shard.runner.draining),
    )


def _memory(shard: Shard) -> Sequence[Instrument]:
    config = shard.config

    def used() -> Iterable[tuple[Labels, float]]:
        held = shard.holdings.memory()
        return [(("host",), held.host_bytes), (("gpu",), held.gpu_bytes)]

    return (
        Gauge(
            "headrace_shard_memory_bytes",
            "Memory that the loaded bundles were measured to use.",
            ("kind",),
            used,
        ),
        Gauge(
            "headrace_shard_memory_limit_bytes",
            "Memory that bundles may use; 0 for no limit.",
            ("kind",),
            lambda: [(("host",), config.memory_bytes), (("gpu",), config.gpu_memory_bytes)],
        ),
        gauge(
            "headrace_shard_anonymous_memory_bytes",
            "Resident memory of the process that no file backs.",
            anonymous_bytes,
        ),
    )


def _bundles(holdings: Holdings, history: LoadHistory) -> Sequence[Instrument]:
    def by_state() -> Iterable[tuple[Labels, float]]:
        found = collections.Counter(replica.state.value for replica in holdings.replicas())
        return [((state,), count) for state, count in found.items()]

    return (
        Gauge("headrace_shard_bundles", "Bundles held, by state.", ("state",), by_state),
        counter(
            "headrace_shard_loads_total",
            "Loads of bundles, by outcome: ok, failed, no_room.",
            history.loads,
        ),
        histogram("headrace_shard_load_seconds", "Time that loads took.", history.load_s),
        counter("headrace_shard_evictions_total", "Bundles made cold to make room.", history.evictions),
    )
