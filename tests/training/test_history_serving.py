"""The recipes of history transformers: trained, exported, loaded on a real shard and asked over gRPC."""

from pathlib import Path

import numpy as np
import pytest

from shards.golden import GOLDEN_FILE, read_golden
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.training.beauty_slice import real_slice, rounds, small
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets.tables import Dataset
from training.evaluation.judgements import Judged, judged_queries
from training.pipeline import train
from training.recipe import Recipe
from training.run import Run
from training.trainer import Advanced, EpochEnded, PhaseStarted


def trained(recipe: Recipe, dataset: Dataset, root: Path) -> tuple[ModelVersion, list[EpochEnded]]:
    """Return the bundle of the recipe's embedding channel and the epochs of its training."""
    heard: list[EpochEnded] = []

    def observe(event: PhaseStarted | Advanced | EpochEnded) -> None:
        if isinstance(event, EpochEnded):
            heard.append(event)

    destination = Destination(root=root, prefix="beauty", version="1")
    run = Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True, observe=observe)
    return train(run, destination).release.channels[0].model, heard


def popular(dataset: Dataset, judged: list[Judged], k: int) -> float:
    """Return the recall of the most popular items."""
    counts: dict[str, int] = {}
    for item_id in dataset.events.column("item_id").to_pylist():
        counts[item_id] = counts.get(item_id, 0) + 1
    best = sorted(counts, key=lambda item_id: (-counts[item_id], item_id))[:k]
    return float(np.mean([query.relevant in best for query in judged]))


def test_a_recipe_answers_on_a_shard_as_its_goldens_say(tmp_path: Path) -> None:
    model, _ = trained(small("pinnerformer", epochs=6), rounds(), tmp_path / "models")
    golden = read_golden(tmp_path / "models" / model.model / model.version / GOLDEN_FILE)
    stranger = SearchContext(now_ms=golden.contexts[0].now_ms)
    answers = asked(tmp_path / "models", tmp_path / "state", model, [*golden.contexts, stranger])
    for answer, item_ids in zip(answers, golden.item_ids, strict=False):
        assert answer[: len(item_ids)] == item_ids
    assert len(answers[-1]) == 12, "somebody without a history is answered too"


@pytest.mark.data
def test_a_slice_of_the_real_data_is_learned_and_answered_for_on_a_shard(tmp_path: Path) -> None:
    dataset = real_slice(1500)
    model, epochs = trained(small("sasrec", epochs=8), dataset, tmp_path / "models")
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    judged = judged_queries(dataset, "test", limit=250, history_limit=50)
    answers = asked(tmp_path / "models", tmp_path / "state", model, [query.context for query in judged])
    found = np.mean([query.relevant in answer for query, answer in zip(judged, answers, strict=True)])
    assert found > popular(dataset, judged, 20)
