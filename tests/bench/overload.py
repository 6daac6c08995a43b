"""A small real cluster at three times the load that it can carry: `make bench-overload`.

Generators in processes of their own, on the same machine. First they find what the cluster can carry, so
many searches at once; then they send three times that, whatever becomes of it, and then half of it again. In
the end they look again at what it can carry, as machines become faster and slower, and the mean is the peak.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from tests.bench import sick_shards
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.search_load import CANCELLED, OK, RESOURCE_EXHAUSTED, Generators, Order, Sent
from tests.deploy.running_cluster import headrace, running_cluster

SURFACE = "movielens"
_WORDS = (
    *("star", "toy", "love", "space", "godfather", "dark", "comedy", "dogs", "war", "king", "night", "city"),
    *("blue", "last", "first", "lost", "man", "wild", "summer", "river", "story", "house", "dead", "dream"),
)
QUERIES = tuple(f"{one} {other}" for one in _WORDS for other in _WORDS if one != other)
"""No two in flight are equal, or their searches would share an answer."""

DEADLINE_S = 1
GENERATORS = 2
AT_ONCE = (4, 8, 16, 32, 64)
OVERLOAD = 3.0

CLUSTER = "--routers 1 --shards 1"
"""One busy process for each of two cores: more of them only interrupt each other (docs/robustness.md)."""

SERVING = {"shard": {"niceness": 5}}
"""As docs/robustness.md advises where routers and shards share cores."""

REFUSED = (RESOURCE_EXHAUSTED, CANCELLED)
"""By the router, and by its gRPC for a router that has no time to look at more."""

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Seconds of each phase."""

    closed_s: float = 8.0
    before_s: float = 6.0
    overload_s: float = 30.0
    after_s: float = 10.0


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--workspace", type=Path, help="workspace with a trained movielens; without one it is trained first"
    )
    parser.add_argument("--short", action="store_true", help="a few seconds of each phase")
    parser.add_argument("--cluster", default=CLUSTER, help=f"options of `headrace up`; default: {CLUSTER}")
    options = parser.parse_args()
    short = options.short
    lengths = Lengths(closed_s=2.0, before_s=2.0, overload_s=6.0, after_s=5.0) if short else Lengths()
    figures: Figures = {
        "overload": measure(lengths, options.workspace, options.cluster),
        "sick": sick_shards.measure(short=short),
    }
    checks = [*checks_of(figures["overload"]), *sick_shards.checks_of(figures["sick"])]
    settings = {
        "deadline_s": DEADLINE_S,
        "generators": GENERATORS,
        "overload": OVERLOAD,
        "cluster": options.cluster,
        "serving": SERVING,
        "short": short,
    }
    publish("overload", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


def measure(lengths: Lengths, trained: Path | None, cluster_options: str = CLUSTER) -> Figures:
    """Return what a cluster, started with these options, made of the loads."""
    with (
        Generators(GENERATORS) as generators,
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder,
    ):
        workspace = _workspace(Path(folder) / "workspace", trained)
        serving = Path(folder) / "serving.json"
        serving.write_text(json.dumps(SERVING))
        options = (*cluster_options.split(), "--serving", str(serving))
        with running_cluster(workspace, *options) as cluster:
            _closed(generators, cluster.router, at_once=8, seconds=lengths.before_s)
            closed = {
                at_once: _closed(generators, cluster.router, at_once=at_once, seconds=lengths.closed_s)
                for at_once in AT_ONCE
            }
            best = max(closed, key=lambda at_once: closed[at_once]["answered_per_s"])
            before = closed[best]["answered_per_s"]
            found = _overloaded(generators, cluster.router, before, lengths)
            again = _closed(generators, cluster.router, at_once=best, seconds=lengths.closed_s)
            return {
                "closed_loop": closed,
                "closed_loop_after": again,
                "peak_per_s": statistics.mean((before, again["answered_per_s"])),
            } | found


def _workspace(root: Path, trained: Path | None) -> Workspace:
    """Return a workspace of its own for the cluster, with what was trained there or is trained here."""
    if trained is None:
        command = headrace("train", SURFACE, "--workspace", str(root))
        subprocess.run(command, cwd=PROJECT_ROOT, stdout=sys.stderr, check=True)
    else:
        for name in ("models", "releases", "users.lmdb"):
            if (trained / name).exists():
                shutil.copytree(trained / name, root / name)
    return Workspace(root)


def _closed(generators: Generators, address: str, *, at_once: int, seconds: float) -> Figures:
    sent = generators.send(_order(address, in_flight=at_once, seconds=seconds))
    return _summary(sent, seconds)


def _overloaded(generators: Generators, address: str, peak: float, lengths: Lengths) -> Figures:
    rates = [
        (peak / 2, lengths.before_s),
        (OVERLOAD * peak, lengths.overload_s),
        (peak / 2, lengths.after_s),
    ]
    sent = generators.send(_order(address, rates=rates))
    begins_s = min(sent.sent_s) + lengths.before_s
    ends_s = begins_s + lengths.overload_s
    before, during, after = (
        _rows(sent, 0.0, begins_s),
        _rows(sent, begins_s, ends_s),
        _rows(sent, ends_s, float("inf")),
    )
    could_send = len(sent.sent_s) / sent.cpu_s * GENERATORS
    lost = [at for at, code in zip(after.sent_s, after.code, strict=True) if code != OK]
    return {
        "before": _summary(before, lengths.before_s),
        "during": _summary(during, lengths.overload_s),
        "after": _summary(after, lengths.after_s),
        "recovered_after_s": max(lost, default=ends_s) - ends_s,
        "intended_per_s": OVERLOAD * peak,
        "generators_could_send_per_s": could_send,
    }


def _order(address: str, **changed: Any) -> Order:
    return Order(address=address, surface=SURFACE, queries=QUERIES, deadline_s=DEADLINE_S, **changed)


def _rows(sent: Sent, begin_s: float, end_s: float) -> Sent:
    kept = [n for n, at in enumerate(sent.sent_s) if begin_s <= at < end_s]
    return Sent(
        sent_s=[sent.sent_s[n] for n in kept],
        took_s=[sent.took_s[n] for n in kept],
        late_s=[sent.late_s[n] for n in kept],
        code=[sent.code[n] for n in kept],
        complete=[sent.complete[n] for n in kept],
    )


def _summary(sent: Sent, seconds: float) -> Figures:
    """Return the figures of a phase; a search that was let in and then failed took for ever."""
    rows = list(zip(sent.took_s, sent.code, strict=True))
    answered = [took for took, code in rows if code == OK]
    refused = [took for took, code in rows if code in REFUSED]
    accepted = [took if code == OK else float("inf") for took, code in rows if code not in REFUSED]
    codes = {_NAMES.get(code, "LOST"): sent.code.count(code) for code in sorted(set(sent.code))}
    return {
        "sent_per_s": len(rows) / seconds,
        "answered_per_s": len(answered) / seconds,
        "complete_per_s": sum(sent.complete) / seconds,
        "codes": codes,
        "accepted_ms": _quantiles_ms(accepted),
        "refused_ms": _quantiles_ms(refused),
        "generator_late_ms": _quantiles_ms(sent.late_s),
    }


def _quantiles_ms(values_s: Sequence[float]) -> dict[str, float]:
    """Return median, p99 and maximum in ms; nothing of nothing. What took for ever is -1."""
    if len(values_s) < 2:
        return {}
    ordered = sorted(values_s)
    found = {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "max": ordered[-1],
    }
    return {name: -1.0 if value == float("inf") else value * 1e3 for name, value in found.items()}


def checks_of(figures: Figures) -> list[Check]:
    """Return the figures beside their aims."""
    during = figures["during"]
    accepted_ms = during["accepted_ms"].get("p99", -1.0)
    share = during["answered_per_s"] / figures["peak_per_s"]
    sent = during["sent_per_s"] / figures["intended_per_s"]
    return [
        at_least("searches sent, of those that were due", sent, 0.98),
        at_least(
            "searches/s that the generators could send, per search/s due",
            figures["generators_could_send_per_s"] / figures["intended_per_s"],
            2.0,
        ),
        at_least("goodput at 3x the load, of the peak", share, 0.8),
        at_most("p99 of accepted searches", accepted_ms if accepted_ms >= 0 else 1e9, DEADLINE_S * 1e3, "ms"),
        at_most("p99 of refusals", during["refused_ms"].get("p99", 1e9), 20.0, "ms"),
        at_most("time to recover once the load drops", figures["recovered_after_s"], 2.0, "s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
