"""The gate of a release, as an evaluation in one process applies it."""

from collections.abc import Mapping
from pathlib import Path

from router.gate import decide, waits_for_lexical
from shards.candidates import Candidates
from shards.gate_model import open_gate
from shards.release import Release
from shards.search_context import SearchContext
from training.evaluation.offline import GateRule


def gate_rule(release: Release, models_dir: Path) -> GateRule:
    """Return the gate of the release at its target rate."""
    rules, model = release.gate, release.gate.model
    opened = open_gate(models_dir / model.model / model.version, model) if model else None

    def opens(context: SearchContext, retrieved: Mapping[str, Candidates]) -> bool:
        waits = opened is not None and waits_for_lexical(rules, context, opened)
        lexical = retrieved[opened.params.channel] if opened and waits else None
        return decide(rules, context, model=opened, lexical=lexical).open

    return opens
