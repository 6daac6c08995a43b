"""The history transformer: shapes, causality, gradients, learning, export."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.model_batches import assert_every_parameter_learns
from training.models.history_transformer import HistoryTransformer, HistoryTransformerConfig
from training.programs import query_tower

ITEMS, LENGTH = 20, 6
HISTORY_BL = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def transformer(**changes: object) -> HistoryTransformer:
    torch.manual_seed(0)
    settings: dict[str, object] = {"width": 16, "dropout": 0.0} | changes
    return HistoryTransformer(
        HistoryTransformerConfig(**settings),  # type: ignore[arg-type]
        history="history",
        item="item",
        max_len=LENGTH,
        attribute_NA=torch.randint(0, 5, (ITEMS, 3)),
        attributes=5,
    )


def every_item() -> dict[str, Tensor]:
    return {"item": torch.arange(1, ITEMS + 1)}


def loss_of(model: HistoryTransformer) -> Tensor:
    vectors = model.encode_places(HISTORY_BL[:2, :-1])
    logits = vectors @ model.encode_item(every_item()).T / model.temperature()
    there = HISTORY_BL[:2] > 0
    return torch.nn.functional.cross_entropy(logits[there], HISTORY_BL[:2][there] - 1)


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3, "attribute_dropout": 0.5, "heads": 4}])
def test_queries_and_items_are_unit_vectors_of_one_width(changes: dict[str, object]) -> None:
    model = transformer(**changes)
    queries, items = model.encode_query({"history": HISTORY_BL}), model.encode_item(every_item())
    assert queries.shape == (3, 16)
    assert items.shape == (ITEMS, 16)
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(items.norm(dim=1), torch.ones(ITEMS))


def test_inner_products_need_no_unit_length_and_no_temperature() -> None:
    model = transformer(unit_length=False)
    assert not torch.allclose(model.encode_item(every_item()).norm(dim=1), torch.ones(ITEMS))
    assert model.temperature() == 1.0


def test_a_place_knows_what_came_before_it_and_nothing_else() -> None:
    model = transformer().eval()
    other_BL = HISTORY_BL.clone()
    other_BL[:, 3:] = 7
    vectors, others = model.encode_places(HISTORY_BL), model.encode_places(other_BL)
    torch.testing.assert_close(vectors[:, :4], others[:, :4])
    assert not torch.allclose(vectors[0, 4], others[0, 4])


def test_the_query_is_the_place_behind_the_last_event() -> None:
    model = transformer().eval()
    places = model.encode_places(HISTORY_BL)
    torch.testing.assert_close(
        model.encode_query({"history": HISTORY_BL}), torch.stack([places[0, 6], places[1, 3], places[2, 0]])
    )


def test_every_parameter_gets_a_gradient() -> None:
    model = transformer()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


def test_overfits_one_batch() -> None:
    model = transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    # Both histories begin alike, with no event, and go on with different items.
    assert loss.item() < 0.3


def test_temperature_never_falls_below_a_hundredth() -> None:
    model = transformer()
    with torch.no_grad():
        model.log_temperature.fill_(-50.0)
    assert model.temperature().item() == pytest.approx(0.01)


def test_exported_query_tower_gives_equal_vectors_for_any_batch(tmp_path: Path) -> None:
    model = transformer().eval()
    query_tower(model, {"history": HISTORY_BL[:2]}).save(tmp_path)
    reloaded = torch.export.load(tmp_path / "query_tower.pt2").module()
    for size in (1, 3):
        expected = model.encode_query({"history": HISTORY_BL[:size]})
        torch.testing.assert_close(reloaded(history=HISTORY_BL[:size]), expected)


@pytest.mark.parametrize("wrong", [{"width": 15}, {"temperature": 0.001}])
def test_settings_that_make_no_model_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        transformer(**wrong)
