"""The three-tower pre-ranker: shapes, gradients, learning, export."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.model_batches import (
    assert_every_parameter_learns,
    candidate_batch,
    item_batch,
    model_inputs,
    request_batch,
)
from training.losses import binary_loss, listwise_loss
from training.models.three_tower import ThreeTower, ThreeTowerConfig


def three_tower(*, history: bool = True, dropout: float = 0.0) -> ThreeTower:
    torch.manual_seed(0)
    config = ThreeTowerConfig(width=8, hidden=16, dropout=dropout, tasks=("like", "watch"))
    return ThreeTower(config, model_inputs(history=history))


def ranking_loss(model: ThreeTower) -> Tensor:
    rows, cross, labels = candidate_batch(6, 9)
    logits = model(request_batch(6), item_batch(), rows, cross)
    present = torch.ones_like(rows, dtype=torch.bool)
    return (listwise_loss(logits, labels, present) + binary_loss(logits, labels, present)).sum()


@pytest.mark.parametrize("history", [True, False])
def test_gives_one_logit_per_candidate_and_task(history: bool) -> None:
    rows, cross, _ = candidate_batch(6, 9)
    model = three_tower(history=history, dropout=0.2)
    assert model(request_batch(6), item_batch(), rows, cross).shape == (6, 9, 2)


@pytest.mark.parametrize("history", [True, False])
def test_every_parameter_gets_a_gradient(history: bool) -> None:
    model = three_tower(history=history)
    ranking_loss(model).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


def test_overfits_one_batch() -> None:
    model = three_tower()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = ranking_loss(model)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.1


def test_exported_interaction_on_cached_vectors_equals_the_whole_model(tmp_path: Path) -> None:
    class Interaction(nn.Module):
        def __init__(self, model: ThreeTower) -> None:
            super().__init__()
            self.model = model

        def forward(self, user_1D: Tensor, item_CD: Tensor, cross_CK: Tensor) -> Tensor:
            return self.model.interact(user_1D, item_CD.unsqueeze(0), cross_CK.unsqueeze(0)).squeeze(0)

    model = three_tower().eval()
    request = request_batch(1)
    user, items = model.encode_request(request), model.encode_item(item_batch())
    count = torch.export.Dim("candidates", min=1, max=4096)
    program = torch.export.export(
        Interaction(model),
        (user.detach(), items[:5].detach(), torch.zeros(5, 2)),
        dynamic_shapes=({}, {0: count}, {0: count}),
    )
    torch.export.save(program, tmp_path / "interaction.pt2")
    reloaded = torch.export.load(tmp_path / "interaction.pt2").module()
    for candidates in (1, 12):
        rows, cross, _ = candidate_batch(1, candidates)
        expected = model(request, item_batch(), rows, cross)[0]
        torch.testing.assert_close(reloaded(user, items[rows[0]], cross[0]), expected)
