"""Training on what users did, action after action."""

from dataclasses import replace

import pytest
import torch

from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import HistoryItems, ItemId
from shards.features import FeatureSpec
from tests.training.beauty_slice import rounds, small
from training.datasets.amazon_beauty import dataset_of
from training.features import FittingData, fit_spec
from training.models.history_transformer import HistoryTransformer, HistoryTransformerConfig
from training.sequences import (
    SequenceLoss,
    SequenceTraining,
    Windows,
    batches_by_length,
    new_model,
    train_sequences,
    windows_of,
)
from training.tensors import as_tensors
from training.trainer import Seeded

ITEMS = 12


def model_of(config: HistoryTransformerConfig, max_len: int = 8) -> HistoryTransformer:
    dataset = rounds()
    ids = dataset.items.column("item_id").to_pylist()
    features = (HistoryItems(name="history", max_len=max_len), ItemId(name="row"))
    spec = fit_spec(features, FittingData(contexts=(), item_columns={}))
    encoder = RequestEncoder(spec, None, {item_id: row for row, item_id in enumerate(ids)})
    return new_model(config, spec, as_tensors(encoder.encode_items({"item_id": ids})))


def test_windows_hold_every_action_once_and_are_cut_from_the_end() -> None:
    dataset = dataset_of("d", [("u", list("abcdefg")), ("v", list("ab"))], {})
    windows = windows_of(dataset.events, dataset.items, 2)
    assert windows.item_WS.tolist() == [[5, 6, 7], [2, 3, 4], [1, 0, 0], [1, 2, 0]]
    assert windows.user_W.tolist() == [0, 0, 0, 1]
    assert windows.lengths().tolist() == [3, 3, 1, 2]


def test_batches_hold_every_window_once_with_others_of_about_its_length() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 50, (1000,), generator=generator)
    batches = batches_by_length(lengths, 20, generator)
    assert sorted(torch.cat(batches).tolist()) == list(range(1000))
    padding = sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches) / int(lengths.sum())
    assert padding < 0.2
    assert [int(b[0]) for b in batches_by_length(lengths, 20, generator)] != [int(b[0]) for b in batches]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "full"},
        {},
        {"log_q": False},
        {"equal_users": True},
        {"objective": "all_action", "horizon": 1},
    ],
)
def test_every_training_learns_which_item_is_next(changes: dict[str, object]) -> None:
    generator = Seeded(seed=0).apply()
    training = small("sasrec", epochs=20, **changes).sequences
    assert training
    model = model_of(training.model)
    windows = windows_of(rounds().events, rounds().items, 8)
    train_sequences(model, training, windows, ITEMS, generator)
    full = windows.item_WS[windows.lengths() == 8]
    item = {"row": torch.arange(1, ITEMS + 1)}
    with torch.inference_mode():
        scores = model.encode_query({"history": full[:, :4]}) @ model.encode_item(item).T
    assert (scores.argmax(dim=1) + 1 == full[:, 4]).float().mean() > 0.95


def test_all_action_predicts_any_of_the_next_few() -> None:
    training = SequenceTraining(objective="all_action", horizon=3)
    windows = Windows(item_WS=torch.tensor([[1, 2, 3, 4, 5, 0]]), user_W=torch.tensor([0]))
    model = model_of(training.model, max_len=5)
    loss = SequenceLoss(model, training, windows, ITEMS, torch.Generator().manual_seed(0))
    drawn = torch.cat([loss.targets(windows.item_WS) for _ in range(200)])
    assert [sorted(set(place)) for place in drawn.T.tolist()] == [
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
        [4, 5],
        [5],
        [0],
    ]
    following = SequenceLoss(model, replace(training, objective="next"), windows, ITEMS, torch.Generator())
    assert following.targets(windows.item_WS).equal(windows.item_WS)


def test_a_users_other_actions_are_no_negatives_where_masked() -> None:
    windows = Windows(item_WS=torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), user_W=torch.tensor([0, 1]))
    config = HistoryTransformerConfig(width=16, dropout=0.0)
    model = model_of(config, max_len=3)
    values = {}
    for mask_own in (False, True):
        training = SequenceTraining(model=config, negatives=0, log_q=False, mask_own=mask_own)
        loss = SequenceLoss(model, training, windows, ITEMS, torch.Generator())
        values[mask_own] = loss(torch.tensor([0])).item(), loss(torch.tensor([0, 1])).item()
    alone, together = values[True]
    assert alone == pytest.approx(0.0), "a batch of one user leaves nothing to choose from"
    assert 0 < together < values[False][1]


def test_users_weigh_the_same_where_asked() -> None:
    windows = Windows(item_WS=torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0]]), user_W=torch.tensor([0, 1]))
    config = HistoryTransformerConfig(width=16, dropout=0.0)
    model = model_of(config, max_len=3)

    def loss(batch: list[int], *, equal_users: bool) -> torch.Tensor:
        training = SequenceTraining(model=config, loss="full", equal_users=equal_users)
        return SequenceLoss(model, training, windows, ITEMS, torch.Generator())(torch.tensor(batch))

    one, other = loss([0], equal_users=True), loss([1], equal_users=True)
    torch.testing.assert_close(loss([0, 1], equal_users=True), (one + other) / 2)
    torch.testing.assert_close(loss([0, 1], equal_users=False), (4 * one + other) / 5)


@pytest.mark.parametrize("wrong", [{"objective": "last"}, {"loss": "hinge"}, {"horizon": 0}])
def test_settings_that_cannot_train_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SequenceTraining(**wrong)  # type: ignore[arg-type]


def test_a_spec_with_anything_else_than_items_is_refused() -> None:
    spec = FeatureSpec(features=(ItemId(name="row"),))
    with pytest.raises(ValueError, match="one of each"):
        new_model(HistoryTransformerConfig(), spec, {"row": torch.arange(3)})
