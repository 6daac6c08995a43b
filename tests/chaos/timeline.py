"""What the load generator tells while it runs, and figures of any part of it."""

import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.settings import PROJECT_ROOT
from tests.chaos.load import TIMEOUT_S, Failure, Second

_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What became of the searches that ended within some seconds; `failed` is what nobody may find lost.

    `failed` counts those of the product's client, and `plain_failed` those of callers without retries.
    """

    requests: int
    failed: int
    plain_requests: int
    plain_failed: int
    degraded: int
    skipped: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


class Timeline:
    """Collects the seconds of a load generator; safe to read while it writes."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log
        self._seconds: list[Second] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                document = json.loads(line)
                failures = [Failure(**failure) for failure in document.pop("failures")]
                with self._news:
                    self._seconds.append(Second(**document, failures=failures))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait(self, until_s: float) -> None:
        """Return when all that ended before this monotonic time has been told.

        Raises RuntimeError when the generator ends or falls silent.
        """
        late_s = max(until_s, time.monotonic()) + 3 * TIMEOUT_S
        with self._news:
            while not self._seconds or self._seconds[-1].at_s < until_s:
                if self._process.poll() is not None or not self._news.wait(
                    max(0.0, late_s - time.monotonic())
                ):
                    raise RuntimeError("the load generator is silent")

    def started(self) -> float:
        """Return the rate, once searches flow."""
        with self._news:
            if not self._news.wait_for(lambda: bool(self._seconds), _STARTS_WITHIN_S):
                raise RuntimeError("the load generator does not start")
            return self._seconds[0].rate

    def between(self, from_s: float, to_s: float) -> list[Second]:
        """Return the seconds that touch this time."""
        with self._news:
            ends = [*(second.at_s for second in self._seconds[1:]), math.inf]
            return [
                second
                for second, end_s in zip(self._seconds, ends, strict=True)
                if end_s > from_s and second.at_s < to_s
            ]

    def everything(self) -> list[Second]:
        """Return all seconds."""
        return self.between(0.0, math.inf)


def figures(seconds: Sequence[Second]) -> Figures:
    """Return the figures of some seconds."""
    latencies = sorted(latency for second in seconds for latency in second.latencies_ms)
    lanes = Counter(failure.lane for second in seconds for failure in second.failures)
    return Figures(
        requests=sum(second.done for second in seconds),
        failed=lanes["client"],
        plain_requests=sum(second.plain for second in seconds),
        plain_failed=lanes["plain"],
        degraded=sum(second.degraded for second in seconds),
        skipped=sum(second.skipped for second in seconds),
        p50_ms=_quantile(latencies, 0.5),
        p99_ms=_quantile(latencies, 0.99),
        longest_ms=_quantile(latencies, 1.0),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest rank, NaN of nothing."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@contextmanager
def steady_load(router: str, questions: Path, rate: float, most: float, folder: Path) -> Iterator[Timeline]:
    """Run the load generator while the block runs; rate 0 lets it find its own, at most so high."""
    command = [sys.executable, "-m", "tests.chaos.load", router, str(questions), str(rate), str(most)]
    with (folder / "load.err").open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    timeline = Timeline(process, folder / "load.jsonl")
    assert process.stdin is not None
    try:
        yield timeline
    finally:
        process.stdin.close()
        try:
            process.wait(3 * TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def lines(seconds: Sequence[Second]) -> Iterator[str]:
    """Yield a line for people for every second."""
    for second in seconds:
        told = figures([second])
        document = {name: value for name, value in asdict(told).items() if value}
        answered = " ".join(f"{name}={count}" for name, count in sorted(second.releases.items()))
        yield f"{second.at_s:.1f} sent={second.sent} {document} {answered}"
