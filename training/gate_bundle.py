"""The bundle of the gate's model, with goldens that every router replays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.bundle import write_bundle
from shards.candidates import Candidates
from shards.gate_knowledge import GateKnowledge
from shards.gate_model import ENGINE, GateModel, GateParams, save_gate
from shards.golden import GOLDEN_FILE, golden_of, write_golden
from shards.json_codec import to_json
from shards.manifest import Manifest, TrainingRange
from shards.release import Stage
from shards.search_context import SearchContext
from training.channels import Destination
from training.gate import GateTraining, TrainedGate, kept_lexical

GATE = "gate"
"""What the gate's model is called in a release."""


def write_gate(
    trained: TrainedGate,
    config: GateTraining,
    knowledge: GateKnowledge,
    asked: Sequence[tuple[SearchContext, Candidates]],
    training_range: TrainingRange,
    destination: Destination,
) -> None:
    """Write the bundle; its goldens are the model's own answers to searches and their lexical candidates."""
    version = destination.model(GATE)
    params = GateParams(channel=config.channel, label=config.label, depths=config.depths)
    gate = GateModel(
        version=version, params=params, knowledge=knowledge, before=trained.before, after=trained.after
    )
    manifest = Manifest(
        name=version.model,
        version=version.version,
        stage=Stage.GATE,
        engine=ENGINE,
        sizes={"queries": len(knowledge.query_Q), "items": len(knowledge.item_N)},
        params=to_json(params),
        metrics={name: value for name, value in trained.figures.items() if np.isfinite(value)},
        training_range=training_range,
        settings=destination.settings,
    )
    contexts, candidates = [c for c, _ in asked], [kept_lexical(c) for _, c in asked]
    answers = [gate.score(*one, 0, {}, (), 0) for one in zip(contexts, candidates, strict=True)]

    def fill(folder: Path) -> None:
        save_gate(folder, gate)
        write_golden(folder / GOLDEN_FILE, golden_of(contexts, answers, candidates))

    write_bundle(destination.root, manifest, fill)
