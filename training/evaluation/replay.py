"""A split replayed as it was: the release is refreshed every so often while its searches go by."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shards.release import Release
from training.evaluation.judgements import Judged
from training.evaluation.offline import GateRule, evaluate
from training.evaluation.report import Ranks, joined
from training.refreshing import stretches
from training.run import Run


def replay(
    run: Run,
    release: Release,
    models_dir: Path,
    judged: Sequence[Judged],
    every_days: float,
    *,
    gate: GateRule,
    on_query: Callable[[], None] = lambda: None,
) -> Ranks:
    """Return where each ranking puts each query's relevant item, queries in order of time.

    Raises what `stretches` raises.
    """
    judged = sorted(judged, key=lambda query: query.context.now_ms)
    times_ms = [query.context.now_ms for query in judged]
    return joined(
        [
            evaluate(stretch.cascade, judged[stretch.searches], gate=gate, on_query=on_query)
            for stretch in stretches(run, release, models_dir, times_ms, every_days)
        ]
    )
