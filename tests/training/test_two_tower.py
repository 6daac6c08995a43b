"""The two-tower model: shapes, gradients, learning, export."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.model_batches import (
    ITEMS,
    assert_every_parameter_learns,
    item_batch,
    model_inputs,
    request_batch,
)
from training.losses import softmax_loss
from training.models.two_tower import HISTORIES, TwoTower, TwoTowerConfig


def two_tower(history: str = "attention", *, dropout: float = 0.0) -> TwoTower:
    torch.manual_seed(0)
    return TwoTower(TwoTowerConfig(width=16, hidden=24, history=history, dropout=dropout), model_inputs())


def retrieval_loss(model: TwoTower, positive_B: Tensor) -> Tensor:
    logit_BN = model(request_batch(len(positive_B)), item_batch())
    masked_BN = nn.functional.one_hot(positive_B, ITEMS).bool()
    return softmax_loss(logit_BN.gather(1, positive_B.unsqueeze(1)).squeeze(1), logit_BN, masked_BN)


@pytest.mark.parametrize("history", HISTORIES)
def test_towers_return_unit_vectors_of_one_width(history: str) -> None:
    model = two_tower(history, dropout=0.2)
    queries, items = model.encode_query(request_batch(6)), model.encode_item(item_batch())
    assert queries.shape == (6, 16)
    assert items.shape == (ITEMS, 16)
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(items.norm(dim=1), torch.ones(ITEMS))


@pytest.mark.parametrize("history", HISTORIES)
def test_every_parameter_gets_a_gradient(history: str) -> None:
    model = two_tower(history)
    retrieval_loss(model, torch.arange(6)).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


def test_overfits_one_batch() -> None:
    model = two_tower()
    positive = torch.tensor([3, 1, 4, 15, 9, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = retrieval_loss(model, positive)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05
    assert model(request_batch(6), item_batch()).argmax(dim=1).tolist() == positive.tolist()


@pytest.mark.parametrize("history", HISTORIES)
def test_exported_query_tower_gives_equal_vectors_for_any_batch(history: str, tmp_path: Path) -> None:
    class QueryTower(nn.Module):
        def __init__(self, model: TwoTower) -> None:
            super().__init__()
            self.model = model

        def forward(self, request: dict[str, Tensor]) -> Tensor:
            return self.model.encode_query(request)

    model = two_tower(history).eval()
    example = request_batch(3)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(
        QueryTower(model), (example,), dynamic_shapes=({name: {0: batch} for name in example},)
    )
    torch.export.save(program, tmp_path / "query_tower.pt2")
    reloaded = torch.export.load(tmp_path / "query_tower.pt2").module()
    for size in (1, 7):
        torch.testing.assert_close(reloaded(request_batch(size)), model.encode_query(request_batch(size)))


@pytest.mark.parametrize("history", HISTORIES)
def test_an_empty_history_adds_nothing(history: str) -> None:
    model = two_tower(history).eval()
    request = request_batch(2)
    request["history_items"].zero_()
    other_ages = request | {"history_ages": torch.full_like(request["history_ages"], 2)}
    torch.testing.assert_close(model.encode_query(request), model.encode_query(other_ages))


def test_temperature_never_falls_below_a_hundredth() -> None:
    model = two_tower().eval()
    with torch.no_grad():
        model.log_temperature.fill_(-50.0)
    assert model(request_batch(4), item_batch()).abs().max().item() <= 100.001


def test_an_unknown_history_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="history must be"):
        TwoTowerConfig(history="memory")
