"""Brings one bundle into memory: verified, opened, checked against its goldens, warm and measured."""

import gc
import math
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from shards.bundle import Bundle, open_bundle
from shards.errors import MismatchedBundle
from shards.garbage import set_aside_what_stays
from shards.golden import GOLDEN_FILE, Golden, read_golden, replay
from shards.live_quality import Recall
from shards.manifest import Manifest
from shards.memory_use import MemoryUse
from shards.pace import no_rest
from shards.process_memory import memory_in_use
from shards.program import ProgramReader, prepare_program
from shards.recall import golden_recall
from shards.reference import REFERENCE_FILE, Reference, read_reference
from shards.release import ModelVersion
from shards.servable import open_servable
from shards.stages import Servable

WARM_UP_REQUESTS = 8
"""How many requests a bundle answers before it serves: every golden once, and again where they are fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBundle:
    """What answers for a bundle, and what it took."""

    servable: Servable
    memory: MemoryUse
    load_time_s: float
    golden_recall: Recall | None = None
    """How much its approximate search finds for its goldens; None for an engine that has none."""
    reference: Reference | None = None
    """How scores and features were spread in training; None where training did not say."""


def load_bundle(
    model: ModelVersion,
    path: Path,
    device: str,
    read_program: ProgramReader = prepare_program,
    rest: Callable[[], None] = no_rest,
    trusted: Collection[str] = (),
) -> LoadedBundle:
    """Return a bundle ready to serve; BundleError or whatever its libraries raise where it is not.

    Only one may be loaded at a time, so that its memory can be told from that of others. It rests between
    its steps, where others serve meanwhile.
    """
    modules = len(sys.modules)
    loaded = _load(model, path, device, read_program, rest, trusted)
    if len(sys.modules) > modules:
        # The first of its engine: libraries imported what they need, a hundred times what a bundle takes.
        # That stays, is no bundle's, and need not be looked through at every collection from now on.
        del loaded
        set_aside_what_stays()
        loaded = _load(model, path, device, read_program, rest, trusted)
    # Nor need the bundle itself: engines hold no rings of references, so that it goes when it is let go.
    gc.freeze()
    return loaded


def _load(
    model: ModelVersion,
    path: Path,
    device: str,
    read_program: ProgramReader,
    rest: Callable[[], None],
    trusted: Collection[str],
) -> LoadedBundle:
    started = time.monotonic()
    # Garbage of earlier work must not count, neither for nor against the bundle.
    gc.collect()
    before = memory_in_use(device)
    bundle = replace(open_bundle(path, model, trusted), read_program=read_program, rest=rest)
    rest()
    servable = open_servable(bundle, device)
    rest()
    golden = _warm_up(servable, bundle, rest)
    recall = golden_recall(servable, golden, rest=rest)
    reference = None
    if REFERENCE_FILE in bundle.manifest.files:
        reference = read_reference(bundle.file(REFERENCE_FILE))
    gc.collect()
    grown = memory_in_use(device) - before
    return LoadedBundle(
        servable=servable,
        # A bundle let go before, but freed only now by the last request that used it, counts against this
        # one. What was read from disk is in memory in some form, so that it is never less.
        memory=MemoryUse(
            host_bytes=max(grown.host_bytes, served_bytes(bundle.manifest, device)),
            gpu_bytes=max(grown.gpu_bytes, 0),
        ),
        load_time_s=time.monotonic() - started,
        golden_recall=recall,
        reference=reference,
    )


def served_bytes(manifest: Manifest, device: str) -> int:
    """Return the size of the files that a bundle serves from: no goldens or reference, and each program
    in one form."""
    unread = {GOLDEN_FILE, REFERENCE_FILE}
    for program in manifest.programs.values():
        if program.onnx_file:
            unread.add(program.file if device == "cpu" else program.onnx_file)
    return sum(digest.size_bytes for name, digest in manifest.files.items() if name not in unread)


def _warm_up(servable: Servable, bundle: Bundle, rest: Callable[[], None]) -> Golden:
    """Return the goldens, asked until all is warm; MismatchedBundle where an answer is not theirs."""
    golden = read_golden(bundle.file(GOLDEN_FILE))
    if not golden.contexts:
        raise MismatchedBundle(GOLDEN_FILE, "holds no request")
    tolerance = bundle.manifest.tolerance
    rest()
    for _ in range(math.ceil(WARM_UP_REQUESTS / len(golden.contexts))):
        replay(servable, golden, tolerance.rtol, tolerance.atol, rest=rest)
    return golden
