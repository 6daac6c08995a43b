"""Rankers averaged: the mean of their logits, exported and reloaded alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.model_batches import candidate_batch, item_batch, model_inputs, request_batch
from training.models.averaged import Averaged
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.models.task_links import TaskLinks
from training.programs import scorer

CONFIG = MultiTaskRankerConfig(width=8, hidden=16, experts=2, expert_width=8, tasks=("like", "watch"))


def averaged(count: int) -> Averaged:
    torch.manual_seed(0)
    return Averaged([MultiTaskRanker(CONFIG, model_inputs()) for _ in range(count)]).eval()


def test_gives_the_mean_of_its_members() -> None:
    model, (rows, cross, _) = averaged(3), candidate_batch(4, 7)
    asked = (request_batch(4), item_batch(), rows, cross)
    logits = [member(*asked) for member in model.members]
    assert not torch.allclose(logits[0], logits[1])
    torch.testing.assert_close(model(*asked), sum(logits) / 3)


def test_exported_it_gives_equal_predictions_for_any_number_of_candidates(tmp_path: Path) -> None:
    model, request = averaged(2), request_batch(1)
    with torch.no_grad():
        kept_NI = model.encode_item(item_batch())
        rows, cross, _ = candidate_batch(1, 9)
        links = TaskLinks(["binary", "binary"], [1.0, 1.0], [0.0, 0.0])
        program = scorer(model, links, request, kept_NI[rows[0, :3]], cross[0, :3])
        program.save(tmp_path)
        reloaded = torch.export.load(tmp_path / program.spec.file).module()
        found = reloaded(**request, item=kept_NI[rows[0]], cross=cross[0])
        expected = model(request, item_batch(), rows, cross)[0].sigmoid()
    torch.testing.assert_close(found, expected)


def test_a_ranker_without_members_is_refused() -> None:
    with pytest.raises(ValueError, match="members must be at least 1"):
        replace(CONFIG, members=0)
