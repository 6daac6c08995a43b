"""The multi-task ranker with each of its blocks: shapes, gradients, learning, export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training import model_batches
from tests.training.model_batches import (
    assert_every_parameter_learns,
    candidate_batch,
    inputs_with_categories,
    with_categories,
)
from training.losses import binary_loss, listwise_loss
from training.models.multi_task_ranker import MultiTaskRanker, MultiTaskRankerConfig
from training.models.task_sharing import Experts


def request_batch(size: int, *, seed: int = 0) -> dict[str, Tensor]:
    request, _ = with_categories(model_batches.request_batch(size, seed=seed), model_batches.item_batch())
    return request


def item_batch() -> dict[str, Tensor]:
    _, item = with_categories(model_batches.request_batch(1), model_batches.item_batch())
    return item


PLAIN = MultiTaskRankerConfig(
    width=8, hidden=16, experts=3, expert_width=12, dropout=0.0, gate_dropout=0.0, tasks=("like", "watch")
)
BLOCKS = {
    "mmoe": PLAIN,
    "shared bottom": replace(PLAIN, sharing="bottom"),
    "mean": replace(PLAIN, history="mean"),
    "din": replace(PLAIN, history="activation"),
    "sim, hard": replace(PLAIN, history="search", found=3),
    "sim, soft": replace(PLAIN, history="search", search="soft", found=3),
    "dcn-v2": replace(PLAIN, cross_layers=2),
    "dcn-v2, low rank": replace(PLAIN, cross_layers=2, cross_rank=4, cross_experts=2),
    "senet": replace(PLAIN, field_crosses="weighed"),
    "fibinet": replace(PLAIN, field_crosses="both", field_matrices="pair"),
    "inner": replace(PLAIN, field_crosses="bilinear", field_product="inner", field_matrices="each"),
    "ppnet": replace(PLAIN, user_gates=True),
    "one wide task": replace(PLAIN, wide_tasks=("watch",)),
    "all": replace(PLAIN, history="search", found=3, cross_layers=1, field_crosses="both", user_gates=True),
}
every_block = pytest.mark.parametrize("config", BLOCKS.values(), ids=BLOCKS.keys())


def ranker(config: MultiTaskRankerConfig = PLAIN, *, history: bool = True) -> MultiTaskRanker:
    torch.manual_seed(0)
    return MultiTaskRanker(config, inputs_with_categories(history=history))


def ranking_loss(model: MultiTaskRanker) -> Tensor:
    rows, cross, labels = candidate_batch(6, 9)
    logits = model(request_batch(6), item_batch(), rows, cross)
    present = torch.ones_like(rows, dtype=torch.bool)
    return (listwise_loss(logits, labels, present) + binary_loss(logits, labels, present)).sum()


@pytest.mark.parametrize("history", [True, False])
def test_gives_one_logit_per_candidate_and_task(history: bool) -> None:
    rows, cross, _ = candidate_batch(6, 9)
    model = ranker(replace(PLAIN, dropout=0.2, gate_dropout=0.2), history=history)
    assert model(request_batch(6), item_batch(), rows, cross).shape == (6, 9, 2)


@every_block
@pytest.mark.parametrize("history", [True, False])
def test_every_parameter_gets_a_gradient(config: MultiTaskRankerConfig, history: bool) -> None:
    model = ranker(config, history=history)
    ranking_loss(model).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"found": 0}, "found must be at least 1"),
        ({"tasks": ()}, "tasks of a ranker are missing"),
        ({"cross_experts": 2}, "cross_experts need a cross_rank"),
        ({"wide_tasks": ("buy",)}, "'buy' is no task; there are like, watch"),
    ],
)
def test_a_bad_config_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **change)


def test_the_wide_line_reaches_the_tasks_that_it_is_for() -> None:
    model = ranker(replace(PLAIN, wide_tasks=("watch",))).eval()
    rows, cross, _ = candidate_batch(2, 5)
    before = model(request_batch(2), item_batch(), rows, cross)
    assert model.wide is not None
    with torch.no_grad():
        model.wide.line.bias.add_(1.0)
    after: Tensor = model(request_batch(2), item_batch(), rows, cross)
    torch.testing.assert_close(after - before, torch.tensor([0.0, 1.0]).expand(2, 5, 2))


def test_a_hard_search_without_categories_is_refused() -> None:
    inputs = inputs_with_categories()
    assert inputs.history is not None
    blind = replace(inputs, history=replace(inputs.history, categories="", item_category=""))
    with pytest.raises(ValueError, match="a hard search needs HistoryCategories"):
        MultiTaskRanker(BLOCKS["sim, hard"], blind)


def test_each_task_has_a_gate_of_its_own() -> None:
    model = ranker().eval()
    rows, cross, _ = candidate_batch(2, 5)
    before = model(request_batch(2), item_batch(), rows, cross)
    assert isinstance(model.shared, Experts)
    second_task = model.shared.gates.out_features // 2
    with torch.no_grad():
        model.shared.gates.weight[second_task] += 1.0
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


@every_block
def test_exported_scorer_gives_equal_logits_for_any_number_of_candidates(
    config: MultiTaskRankerConfig, tmp_path: Path
) -> None:
    class Scorer(nn.Module):
        def __init__(self, model: MultiTaskRanker) -> None:
            super().__init__()
            self.model = model

        def forward(self, request: dict[str, Tensor], item: dict[str, Tensor], cross_CK: Tensor) -> Tensor:
            item_1CD = self.model.encode_item(item).unsqueeze(0)
            return self.model.score(request, item_1CD, cross_CK.unsqueeze(0)).squeeze(0)

    model, request = ranker(config).eval(), request_batch(1, seed=5)
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
