"""Where the processes of a system spend their time under load, by py-spy: `--profile` of `bench-search`."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench.process_use import ProcessUse
from tests.bench.processor_time import family
from tests.bench.search_caller import Load
from tests.bench.search_systems import Running

_LEAST_SHARE = 0.05
"""Of the system's processor time; who uses less is not looked at."""

_SAMPLES_PER_S = 200
_LINES = 25


def profiled(running: Running, load: Load, folder: Path, prefix: str) -> Iterator[str]:
    """Load the system twice: to see who computes, and to record those. Yields lines for people.

    Leaves a file of folded stacks for each process, `<prefix>-<process>.folded`, as flame graphs take them.
    """
    names = family(running.processes)
    busy = _busy(running, load, names)
    files = {pid: folder / f"{prefix}-{names[pid]}-{pid}.folded" for pid in busy}
    folder.mkdir(parents=True, exist_ok=True)
    recorders = [_recorder(pid, path, load) for pid, path in files.items()]
    running.asker.load(load)
    for recorder in recorders:
        recorder.wait()
    for pid, path in files.items():
        if path.exists():
            yield f"{names[pid]} ({pid}), {path}"
            yield from _summary(path)


def _recorder(pid: int, path: Path, load: Load) -> "subprocess.Popen[bytes]":
    seconds = str(round(load.seconds + load.warm_s))
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    options = ["--duration", seconds, "--rate", str(_SAMPLES_PER_S), "--format", "raw", "--threads"]
    return subprocess.Popen(
        [py_spy, "record", "--pid", str(pid), *options, "--output", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _busy(running: Running, load: Load, names: dict[int, str]) -> list[int]:
    before = {pid: ProcessUse.of(pid).cpu_s for pid in names}
    running.asker.load(load)
    used = {pid: ProcessUse.of(pid).cpu_s - before[pid] for pid in names}
    return [pid for pid, seconds in used.items() if seconds > _LEAST_SHARE * sum(used.values())]


def _summary(path: Path) -> Iterator[str]:
    """Yield the functions in which most samples are, with what they call and without."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_function(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        with_callees.update(dict.fromkeys(frames, int(count)))
    total = max(1, own.total())
    yield "   own   with callees"
    for function, _ in own.most_common(_LINES):
        yield f"{own[function] / total:6.1%}  {with_callees[function] / total:6.1%}  {function}"
    yield "   most with callees"
    for function, samples in with_callees.most_common(3 * _LINES):
        yield f"{own[function] / total:6.1%}  {samples / total:6.1%}  {function}"


def _function(frame: str) -> str:
    """Return "name (file.py)" of a frame, without its line."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") and ":" in frame else frame
