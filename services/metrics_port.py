"""The HTTP port on which Prometheus finds a process, served by threads beside the event loop.

Nothing is computed for it between two scrapes. Where it listens is noted as a target of Prometheus's
file-based service discovery, which also tells operators.
"""

import logging
import selectors
import socket
import socketserver
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from services.instruments import Counter, Gauge, Histogram, Instrument
from services.metrics_targets import Target, forget_target, note_target
from services.telemetry_settings import ProcessTelemetry

log = logging.getLogger(__name__)

_EVERY_INTERFACE = frozenset({"0.0.0.0", "::", "[::]", ""})


@contextmanager
def metrics_port(telemetry: ProcessTelemetry, instruments: Sequence[Instrument]) -> Iterator[str]:
    """Show the instruments while the block runs; gives HOST:PORT, empty where metrics are off.

    A process serves on without a port that it cannot get.
    """
    server = _bound(telemetry, instruments) if telemetry.settings.metrics.on else None
    if server is None:
        yield ""
        return
    address = f"{_reached_at(telemetry)}:{server.server_port}"
    ours, theirs = socket.socketpair()
    thread = Thread(target=_serve, args=(server, theirs), name="metrics", daemon=True)
    thread.start()
    target = Target(role=telemetry.role, process=telemetry.name, address=address)
    if telemetry.targets_dir:
        note_target(telemetry.targets_dir, target)
    log.info("metrics at http://%s/metrics", address)
    try:
        yield address
    finally:
        if telemetry.targets_dir:
            forget_target(telemetry.targets_dir, telemetry.name)
        ours.close()
        thread.join()
        theirs.close()
        server.server_close()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server for the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10.0
    """Seconds after which a connection that asks nothing is closed."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: somebody asks every few seconds."""


def _bound(telemetry: ProcessTelemetry, instruments: Sequence[Instrument]) -> _Server | None:
    """Return a server on the port that is set, else on any, else none."""
    host = telemetry.settings.metrics.host
    for port in dict.fromkeys((telemetry.port, 0)):
        try:
            server = _Server((host, port), _Handler)
        except OSError as error:
            log.error("metrics cannot be served at %s:%d: %s", host, port, error.strerror)
        else:
            server.set_app(make_wsgi_app(_registry(instruments)))
            return server
    return None


def _serve(server: _Server, stop: socket.socket) -> None:
    """Answer until the other end of the pair is closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if stop in ready:
                return
            server.handle_request()


def _registry(instruments: Sequence[Instrument]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Instruments(instruments))
    ProcessCollector(registry=registry)
    return registry


class _Instruments(Collector):
    """Reads the instruments whenever Prometheus asks."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = instruments

    def describe(self) -> Iterable[Metric]:
        """Say which metrics there are, without reading them."""
        return [_family(instrument) for instrument in self._instruments]

    def collect(self) -> Iterable[Metric]:
        """Read all."""
        for instrument in self._instruments:
            family = _family(instrument)
            if isinstance(instrument, Histogram):
                for values, found in instrument.read():
                    bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
                    family.add_metric(  # type: ignore[attr-defined]
                        values,
                        buckets=list(zip(bounds, found.cumulative, strict=True)),
                        sum_value=found.total,
                    )
            else:
                for values, value in instrument.read():
                    family.add_metric(values, value)  # type: ignore[attr-defined]
            yield family


def _family(instrument: Instrument) -> Metric:
    kinds: dict[type, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
        Counter: CounterMetricFamily,
        Gauge: GaugeMetricFamily,
        Histogram: HistogramMetricFamily,
    }
    return kinds[type(instrument)](instrument.name, instrument.meaning, labels=instrument.labels)


def _reached_at(telemetry: ProcessTelemetry) -> str:
    hosts = (telemetry.settings.metrics.host, telemetry.advertise_host, socket.gethostname())
    return next(host for host in hosts if host not in _EVERY_INTERFACE)
