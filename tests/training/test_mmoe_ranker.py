"""The mixture-of-experts ranker: shapes, gradients, learning, export."""

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
from training.models.mmoe_ranker import MMoERanker, MMoERankerConfig


def ranker(*, history: bool = True, dropout: float = 0.0) -> MMoERanker:
    torch.manual_seed(0)
    config = MMoERankerConfig(
        width=8,
        hidden=16,
        experts=3,
        expert_width=12,
        dropout=dropout,
        gate_dropout=dropout,
        tasks=("like", "watch"),
    )
    return MMoERanker(config, model_inputs(history=history))


def ranking_loss(model: MMoERanker) -> Tensor:
    rows, cross, labels = candidate_batch(6, 9)
    logits = model(request_batch(6), item_batch(), rows, cross)
    present = torch.ones_like(rows, dtype=torch.bool)
    return (listwise_loss(logits, labels, present) + binary_loss(logits, labels, present)).sum()


@pytest.mark.parametrize("history", [True, False])
def test_gives_one_logit_per_candidate_and_task(history: bool) -> None:
    rows, cross, _ = candidate_batch(6, 9)
    model = ranker(history=history, dropout=0.2)
    assert model(request_batch(6), item_batch(), rows, cross).shape == (6, 9, 2)


@pytest.mark.parametrize("history", [True, False])
def test_every_parameter_gets_a_gradient(history: bool) -> None:
    model = ranker(history=history)
    ranking_loss(model).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


def test_each_task_has_a_gate_of_its_own() -> None:
    model = ranker().eval()
    rows, cross, _ = candidate_batch(2, 5)
    before = model(request_batch(2), item_batch(), rows, cross)
    second_task = model.experts.gates.out_features // 2
    with torch.no_grad():
        model.experts.gates.weight[second_task] += 1.0
    after = model(request_batch(2), item_batch(), rows, cross)
    torch.testing.assert_close(after[..., 0], before[..., 0])
    assert not torch.allclose(after[..., 1], before[..., 1])


def test_overfits_one_batch() -> None:
    model = ranker()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = ranking_loss(model)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.1


def test_exported_scorer_gives_equal_logits_for_any_number_of_candidates(tmp_path: Path) -> None:
    class Scorer(nn.Module):
        def __init__(self, model: MMoERanker) -> None:
            super().__init__()
            self.model = model

        def forward(self, request: dict[str, Tensor], item: dict[str, Tensor], cross_CK: Tensor) -> Tensor:
            item_1CD = self.model.encode_item(item).unsqueeze(0)
            return self.model.score(request, item_1CD, cross_CK.unsqueeze(0)).squeeze(0)

    model, request = ranker().eval(), request_batch(1, seed=5)
    count = torch.export.Dim("candidates", min=1, max=4096)
    example = {name: value[:4] for name, value in item_batch().items()}
    program = torch.export.export(
        Scorer(model),
        (request, example, torch.zeros(4, 2)),
        dynamic_shapes=({n: {} for n in request}, {n: {0: count} for n in example}, {0: count}),
    )
    torch.export.save(program, tmp_path / "scorer.pt2")
    reloaded = torch.export.load(tmp_path / "scorer.pt2").module()
    for candidates in (1, 12):
        rows, cross, _ = candidate_batch(1, candidates)
        expected = model(request, item_batch(), rows, cross)[0]
        chosen = {name: value[rows[0]] for name, value in item_batch().items()}
        torch.testing.assert_close(reloaded(request, chosen, cross[0]), expected)
