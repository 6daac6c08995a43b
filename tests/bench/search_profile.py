"""Where the processes of a system spend their time under load: `--profile` of `make bench-search`.

The kernel tells how much processor time each thread takes for a request, and py-spy's samples how that
divides between functions. Threads that run no Python, as those of gRPC, have a time and no functions.
"""

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.process_use import processor_s_by_thread
from tests.bench.processor_time import family
from tests.bench.search_caller import Load
from tests.bench.search_systems import Running

_LEAST_MS = 0.05
"""Of processor time for a request; threads and functions that take less are not shown."""

_LEAST_SHARE = 0.03
"""Of the system's processor time; processes that use less are not looked into."""

_SAMPLES_PER_S = 200
_LINES = 30
_WRAPPERS = ("(threading.py)", "(<frozen runpy>)", "(asyncio/", "(concurrent/")
"""Who only calls others is shown where it takes time itself."""

ThreadTimes = Mapping[tuple[int, str], float]
"""Milliseconds for a request by id and name of a thread."""

_THREAD = re.compile(r"thread \((\d+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacks:
    """Samples of one thread: how many were in each function itself, and how many in it or what it calls."""

    name: str
    own: Counter[str] = field(default_factory=Counter)
    with_callees: Counter[str] = field(default_factory=Counter)

    def lines(self, cpu_ms: float) -> Iterator[str]:
        """Yield the functions that take most of this processor time, with what they call and without."""
        each_ms = cpu_ms / max(1, self.own.total())
        told = [f for f in self.with_callees if self.own[f] or not any(w in f for w in _WRAPPERS)]
        for function in sorted(told, key=lambda f: -self.with_callees[f])[:_LINES]:
            ms, own_ms = self.with_callees[function] * each_ms, self.own[function] * each_ms
            if ms >= _LEAST_MS:
                yield f"    {ms:7.2f} ms, itself {own_ms:5.2f}  {function}"


def profiled(running: Running, load: Load, folder: Path, prefix: str) -> Iterator[str]:
    """Load the system twice: to see who computes, and to record those. Yields lines for people.

    Leaves a file of folded stacks for each process, `<prefix>-<process>.folded`, as flame graphs take them.
    """
    names = family(running.processes)
    used_ms = _used_ms(running, load, names)
    total_ms = sum(sum(threads.values()) for threads in used_ms.values())
    busy = {pid: t for pid, t in used_ms.items() if sum(t.values()) > _LEAST_SHARE * total_ms}
    files = {pid: folder / f"{prefix}-{names[pid]}-{pid}.folded" for pid in busy}
    folder.mkdir(parents=True, exist_ok=True)
    recorders = [_recorder(pid, path, load) for pid, path in files.items()]
    running.asker.load(load)
    for recorder in recorders:
        recorder.wait()
    yield f"{total_ms:.2f} ms of processor time for a request, {load.in_flight} in flight"
    for pid, threads in busy.items():
        yield f"{names[pid]} ({pid}): {sum(threads.values()):.2f} ms; stacks in {files[pid]}"
        yield from _by_thread(threads, _stacks(files[pid]))


def _used_ms(
    running: Running, load: Load, names: Mapping[int, str]
) -> dict[int, dict[tuple[int, str], float]]:
    """Return what every thread, by process, uses for a request."""
    before = {pid: processor_s_by_thread(pid) for pid in names}
    asked = max(1, running.asker.load(load).asked)
    after = {pid: processor_s_by_thread(pid) for pid in names}
    return {
        pid: {
            thread: (used_s - before[pid].get(thread, 0.0)) / asked * 1e3
            for thread, used_s in threads.items()
        }
        for pid, threads in after.items()
    }


def _recorder(pid: int, path: Path, load: Load) -> "subprocess.Popen[bytes]":
    seconds = str(round(load.seconds + load.warm_s))
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    options = ["--duration", seconds, "--rate", str(_SAMPLES_PER_S), "--format", "raw", "--threads"]
    return subprocess.Popen(
        [py_spy, "record", "--pid", str(pid), *options, "--output", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _by_thread(threads: ThreadTimes, stacks: Mapping[int, Stacks]) -> Iterator[str]:
    others_ms: defaultdict[str, float] = defaultdict(float)
    for (thread, name), cpu_ms in sorted(threads.items(), key=lambda item: -item[1]):
        if thread in stacks and cpu_ms >= _LEAST_MS:
            yield f"  {cpu_ms:.2f} ms in thread {stacks[thread].name}"
            yield from stacks[thread].lines(cpu_ms)
        else:
            others_ms[name] += cpu_ms
    for name, cpu_ms in others_ms.items():
        if cpu_ms >= _LEAST_MS:
            yield f"  {cpu_ms:.2f} ms in threads {name}, without Python"


def _stacks(path: Path) -> dict[int, Stacks]:
    """Return the samples of a file of py-spy's, by thread."""
    found: dict[int, Stacks] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        known = _THREAD.match(thread)
        if known and frames:
            stacks = found.setdefault(int(known[1]), Stacks(name=thread.partition(": ")[2]))
            functions = [_function(frame) for frame in frames]
            stacks.own[functions[-1]] += int(count)
            for function in dict.fromkeys(functions):
                stacks.with_callees[function] += int(count)
    return found


def _function(frame: str) -> str:
    """Return "name (file.py)" of a frame, without its line."""
    return f"{frame.rpartition(':')[0]})" if ":" in frame else frame
