import socket
import threading
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from services.instruments import Counter, Gauge, Instrument, counter, gauge, histogram
from services.metrics_port import metrics_port
from services.metrics_targets import Target, metrics_targets
from services.telemetry_settings import ROUTER, SILENT, MetricsSettings, ProcessTelemetry, Telemetry
from shards.measures import Counts, Distributions
from tests.services.scraping import scrape

NOISY = ProcessTelemetry(role=ROUTER, name="router-1", settings=Telemetry())


def on_port(port: int) -> ProcessTelemetry:
    """Return the telemetry of the second router, when the first has the port before."""
    return replace(NOISY, settings=Telemetry(metrics=MetricsSettings(router_port=port - 1)))


def instruments(calls: Counts, took: Distributions, depth: list[int]) -> list[Instrument]:
    return [
        counter("calls_total", "Calls.", calls),
        histogram("call_seconds", "Time.", took),
        gauge("depth", "How deep.", lambda: depth[0]),
        Gauge("held_bytes", "Bytes.", ("kind",), lambda: [(("host",), 5.0), (("gpu",), 0.0)]),
        Counter("shed_total", "Shed.", (), lambda: [((), 3)]),
    ]


def test_figures_are_those_of_the_moment_of_the_scrape() -> None:
    calls, took, depth = Counts("status"), Distributions("stage", bounds=(0.1, 1.0)), [1]
    with metrics_port(NOISY, instruments(calls, took, depth)) as address:
        assert "call_seconds" in scrape(address).kinds
        calls.add("ok")
        took.observe(0.1, "ranking")
        took.observe(2.0, "ranking")
        depth[0] = 4
        found = scrape(address)
    assert found.value("calls_total", status="ok") == 1
    assert found.value("depth") == 4
    assert found.value("held_bytes", kind="host") == 5
    assert found.value("shed_total") == 3
    assert found.value("call_seconds_bucket", stage="ranking", le="0.1") == 1
    assert found.value("call_seconds_bucket", stage="ranking", le="1.0") == 1
    assert found.value("call_seconds_bucket", stage="ranking", le="+Inf") == 2
    assert found.value("call_seconds_count", stage="ranking") == 2
    assert found.value("call_seconds_sum", stage="ranking") == pytest.approx(2.1)
    assert found.value("process_resident_memory_bytes") > 0


def test_where_a_process_is_scraped_is_noted_while_it_lives(tmp_path: Path) -> None:
    noted = replace(NOISY, targets_dir=tmp_path / "metrics")
    with metrics_port(noted, []) as address:
        assert address.startswith("127.0.0.1:")
        assert metrics_targets(tmp_path / "metrics") == (
            Target(role="router", process="router-1", address=address),
        )
    assert metrics_targets(tmp_path / "metrics") == ()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10)


def test_a_process_takes_the_port_that_its_number_gives_it() -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with metrics_port(on_port(free), []) as address:
        assert address == f"127.0.0.1:{free}"
        # Who comes second takes any, rather than not serve.
        with metrics_port(on_port(free), []) as other:
            assert other not in ("", address)
            assert scrape(other).kinds


def test_metrics_can_be_off(tmp_path: Path) -> None:
    silent = replace(NOISY, settings=SILENT, targets_dir=tmp_path)
    threads = threading.active_count()
    with metrics_port(silent, []) as address:
        assert address == ""
        assert threading.active_count() == threads
    assert metrics_targets(tmp_path) == ()


def test_a_host_that_is_not_ours_keeps_no_process_from_serving() -> None:
    settings = Telemetry(metrics=MetricsSettings(host="192.0.2.1"))
    with metrics_port(replace(NOISY, settings=settings), []) as address:
        assert address == ""


def test_on_every_interface_others_are_told_a_name() -> None:
    settings = Telemetry(metrics=MetricsSettings(host="0.0.0.0"))
    with metrics_port(replace(NOISY, settings=settings, advertise_host="127.0.0.1"), []) as address:
        assert scrape(address).kinds
    with metrics_port(replace(NOISY, settings=settings, advertise_host="0.0.0.0"), []) as address:
        assert address.partition(":")[0] == socket.gethostname()
