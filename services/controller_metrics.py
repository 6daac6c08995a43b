"""What Prometheus may know of a controller; one that does not lead knows little."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from services.controller_driver import ControllerDriver
from services.instruments import Counter, Gauge, Instrument, gauge
from shards.measures import Labels

Driving = Callable[[ControllerDriver], Iterable[tuple[Labels, float]]]


class ControllerMetrics:
    """Instruments of a controller, whose `driver` is None while it does not lead."""

    def __init__(self) -> None:
        self.driver: ControllerDriver | None = None

    @contextmanager
    def showing(self, driver: ControllerDriver) -> Iterator[None]:
        """Show what the driver knows while the block runs."""
        self.driver = driver
        try:
            yield
        finally:
            self.driver = None

    def instruments(self) -> Sequence[Instrument]:
        """Return the instruments; all are read when somebody asks."""
        return (
            gauge(
                "headrace_controller_leading",
                "1 while this controller leads.",
                lambda: self.driver is not None,
            ),
            self._gauge("headrace_controller_generation", "Generation that is committed.", (), _generation),
            self._gauge(
                "headrace_controller_operations",
                "Operations that are remembered, by kind and state.",
                ("kind", "state"),
                _operations,
            ),
            self._gauge("headrace_controller_shards", "Shards by state.", ("state",), _shards),
            self._gauge("headrace_controller_replicas", "Replicas by state.", ("state",), _replicas),
            self._gauge(
                "headrace_controller_unplaced_bundles", "Bundles with too few replicas.", (), _unplaced
            ),
            self._gauge(
                "headrace_controller_deferred_moves", "Moves that wait for a later round.", (), _deferred
            ),
            Counter(
                "headrace_controller_commit_failures_total",
                "Commits of the placement that the store did not take, since this controller leads.",
                (),
                self._read(lambda driver: [((), driver.commit_failures)]),
            ),
        )

    def _gauge(self, name: str, meaning: str, labels: Labels, read: Driving) -> Gauge:
        return Gauge(name, meaning, labels, self._read(read))

    def _read(self, read: Driving) -> Callable[[], Iterable[tuple[Labels, float]]]:
        def found() -> Iterable[tuple[Labels, float]]:
            driver = self.driver
            return [] if driver is None else read(driver)

        return found


def _generation(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    return [((), driver.state.placement.generation)]


def _operations(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    found = collections.Counter((o.kind, o.state.value) for o in driver.operations())
    return list(found.items())


def _shards(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    state, now_ms = driver.state, driver.now_ms()
    found = collections.Counter(state.shard_state(shard_id, now_ms).value for shard_id in state.shards)
    return [((name,), count) for name, count in found.items()]


def _replicas(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    views = driver.state.shards.values()
    found = collections.Counter(r.state.value for view in views for r in view.replicas.values())
    return [((name,), count) for name, count in found.items()]


def _unplaced(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    return [((), len(driver.state.unplaced))]


def _deferred(driver: ControllerDriver) -> Iterable[tuple[Labels, float]]:
    return [((), driver.state.deferred)]
