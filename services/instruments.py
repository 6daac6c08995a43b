"""What a process lets others measure: names, labels, and where the figures are read when somebody asks.

Needs no library: `services.metrics_port` shows instruments to Prometheus.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shards.measures import Counts, Distribution, Distributions, Labels


@dataclass(frozen=True, slots=True)
class Counter:
    """Something that only grows while the process lives; its name ends in `_total`."""

    name: str
    meaning: str
    labels: Labels
    read: Callable[[], Iterable[tuple[Labels, float]]]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that is as it is now."""

    name: str
    meaning: str
    labels: Labels
    read: Callable[[], Iterable[tuple[Labels, float]]]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How values are spread; where they are times, its name ends in `_seconds`."""

    name: str
    meaning: str
    labels: Labels
    read: Callable[[], Iterable[tuple[Labels, Distribution]]]


Instrument = Counter | Gauge | Histogram


def counter(name: str, meaning: str, counts: Counts) -> Counter:
    """Return the counter that shows these counts."""
    return Counter(name, meaning, counts.labels, counts.read)


def histogram(name: str, meaning: str, distributions: Distributions) -> Histogram:
    """Return the histogram that shows these distributions."""
    return Histogram(name, meaning, distributions.labels, distributions.read)


def gauge(name: str, meaning: str, read: Callable[[], float]) -> Gauge:
    """Return a gauge without labels."""
    return Gauge(name, meaning, (), lambda: [((), read())])
